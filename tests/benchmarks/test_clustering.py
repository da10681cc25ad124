"""Codes and loss of swapped prediction on one core, against the plainest loss on the same scores."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from medssl.losses.swapped_prediction import swapped_prediction_loss

pytestmark = pytest.mark.benchmark

VIEWS, BATCH, PROTOTYPES, DIM = 2, 256, 3000, 128


def test_sinkhorn_and_swapped_prediction(figures, seconds):
    """Two Sinkhorns, two predictions and the gradient, against log_softmax and its gradient."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    prototypes = normalize(torch.randn(PROTOTYPES, DIM), dim=1)
    scores = normalize(torch.randn(VIEWS * BATCH, DIM), dim=1) @ prototypes.T
    views = [part.clone().requires_grad_() for part in scores.chunk(VIEWS)]
    whole, gradient = scores.clone().requires_grad_(), torch.randn_like(scores)

    def ours() -> None:
        for view in views:
            view.grad = None
        swapped_prediction_loss(views).backward()

    def plain() -> None:
        whole.grad = None
        whole.log_softmax(dim=1).backward(gradient)

    try:
        ours_s, plain_s = seconds(ours, plain, runs=31)
    finally:
        torch.set_num_threads(threads)
    name = f"Sinkhorn and swapped prediction, {VIEWS} x {BATCH} x {PROTOTYPES}"
    figures.at_most(name, ours_s / plain_s, 2.5, "x", reference="log_softmax", runs=31)
