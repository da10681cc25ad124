"""Codes and loss of swapped prediction on one core, against the plainest loss on the same scores."""

from __future__ import annotations

import statistics
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from medssl.losses.swapped_prediction import swapped_prediction_loss

pytestmark = pytest.mark.benchmark

VIEWS, BATCH, PROTOTYPES, DIM = 2, 256, 3000, 128
PLACES, RUNS = 15, 15


def test_sinkhorn_and_swapped_prediction(figures, seconds):
    """Two Sinkhorns, two predictions and the gradient, against log_softmax and its gradient.

    How fast either is depends on where its buffers happen to lie (by half, and for as long as they lie
    there), so the ratio is taken with buffers in several places.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    prototypes = normalize(torch.randn(PROTOTYPES, DIM), dim=1)
    scores = normalize(torch.randn(VIEWS * BATCH, DIM), dim=1) @ prototypes.T
    ratios, between = [], []
    try:
        for place in range(PLACES):
            between.append(torch.ones(100_000 + 37_000 * place))  # the next buffers lie elsewhere
            views = [part.clone().requires_grad_() for part in scores.chunk(VIEWS)]
            whole, gradient = scores.clone().requires_grad_(), torch.randn_like(scores)
            ours_s, plain_s = seconds(partial(_ours, views), partial(_plain, whole, gradient), runs=RUNS)
            ratios.append(ours_s / plain_s)
            between += [*views, whole, gradient]
    finally:
        torch.set_num_threads(threads)
    name = f"Sinkhorn and swapped prediction, {VIEWS} x {BATCH} x {PROTOTYPES}"
    figures.at_most(name, statistics.median(ratios), 2.5, "x", reference="log_softmax", runs=PLACES * RUNS)


def _ours(views: list[Tensor]) -> None:
    for view in views:
        view.grad = None
    swapped_prediction_loss(views).backward()


def _plain(scores: Tensor, gradient: Tensor) -> None:
    scores.grad = None
    scores.log_softmax(dim=1).backward(gradient)
