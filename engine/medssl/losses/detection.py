"""Losses of a dense box detector: focal loss of a centre map, generalised IoU of boxes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def centre_focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor, alpha: float = 2.0, beta: float = 4.0
) -> Tensor:
    """Penalty-reduced focal loss over all cells, a sum: divide it by the number of centres.

    A cell with target 1 costs ``-(1 - p)^alpha log p``; any other ``-(1 - y)^beta p^alpha log(1 - p)``: a
    cell beside a centre is hardly blamed for a high score.

    Args:
        logits: (B, K, *S).
        target: (B, K, *S) in [0, 1]; 1 exactly at centres.
        weight: broadcastable to them; 0 where a cell is not judged.
        alpha: focusing exponent.
        beta: exponent of the penalty reduction.

    Zhou, Wang, Kraehenbuehl, "Objects as points", 2019, equation 1.
    """
    p = logits.sigmoid()
    hit = (1 - p).pow(alpha) * F.logsigmoid(logits)
    miss = (1 - target).pow(beta) * p.pow(alpha) * F.logsigmoid(-logits)
    return -(torch.where(target == 1, hit, miss) * weight).sum()


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU of boxes in pairs: IoU minus the empty share of the smallest box around both.

    Args:
        first: (N, 2 n), n starts and n stops, positive edges.
        second: (N, 2 n).

    Returns:
        (N,) in (-1, 1].

    Rezatofighi et al., "Generalized intersection over union", 2019, algorithm 1.
    """
    n = first.shape[1] // 2
    shared = (
        (torch.minimum(first[:, n:], second[:, n:]) - torch.maximum(first[:, :n], second[:, :n]))
        .clamp(min=0)
        .prod(dim=1)
    )
    around = (torch.maximum(first[:, n:], second[:, n:]) - torch.minimum(first[:, :n], second[:, :n])).prod(
        dim=1
    )
    sizes = [(box[:, n:] - box[:, :n]).prod(dim=1) for box in (first, second)]
    union = sizes[0] + sizes[1] - shared
    tiny = torch.finfo(first.dtype).tiny
    return shared / union.clamp(min=tiny) - (around - union) / around.clamp(min=tiny)


def box_loss(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``1 - generalised IoU``, weighted; zero where there is no box.

    Args:
        predicted: (N, 2 n).
        target: (N, 2 n).
        weight: (N,), not negative.
    """
    if not len(predicted):
        return predicted.sum()
    return (weight * (1 - generalised_iou(predicted, target))).sum() / weight.sum().clamp(min=1e-6)
