"""Swapped prediction: predict the cluster code of one view from another view of the same image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from medssl.losses.gathering import mean_over_world
from medssl.losses.sinkhorn import sinkhorn


def swapped_prediction_loss(
    scores: Sequence[Tensor],
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    *,
    codes: Sequence[Tensor] | None = None,
    softmax_mask: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Mean over global views i and other views v of the cross entropy of code q_i and prediction p_v.

    q_i = sinkhorn(scores_i), without gradient; p_v = softmax(scores_v / temperature). A view's own code is
    left out. Rows may be images or the cells of feature maps, as long as row b is one place in all views.

    Args:
        scores: one (B, K) per view, similarities to the prototypes; the first two views are global.
        temperature: of the prediction.
        epsilon: of the codes, see `sinkhorn`.
        iterations: of the codes, see `sinkhorn`.
        codes: one (B, K) per assigning view (the first ones), instead of codes from ``scores``: for
            prototypes in blocks (`prototype_codes`) or a queue.
        softmax_mask: (B, K) or (K,) bool, True where a prototype takes part in the prediction's softmax; must
            cover all mass of the codes.
        group: the group of all processes: codes are balanced over it, and rows count once each whichever
            process holds them (a collective call, see `mean_over_world`); None for this process alone.

    Returns:
        Scalar; ln K for uniform predictions, 0 without any row.

    Raises:
        ValueError: with fewer than two views.

    Reference: Caron et al., NeurIPS 2020, equations 1-2 and section 3.2 (multi-crop).
    """
    if len(scores) < 2:
        raise ValueError(f"swapped prediction needs at least two views, got {len(scores)}")
    if codes is None:
        codes = [sinkhorn(view, epsilon, iterations, group=group) for view in scores[:2]]
    predictions = [_log_softmax(view, temperature, softmax_mask) for view in scores]  # each (B, K)
    rows = torch.stack(
        [
            -(code.detach() * prediction).sum(dim=1)
            for i, code in enumerate(codes)
            for v, prediction in enumerate(predictions)
            if v != i
        ]
    )  # (pairs, B)
    if group is None:
        return rows.sum() / max(1, rows.numel())
    return mean_over_world(rows, torch.ones_like(rows))


def _log_softmax(scores: Tensor, temperature: float, mask: Tensor | None) -> Tensor:
    logits = scores.to(torch.promote_types(scores.dtype, torch.float32)) / temperature
    if mask is None:
        return logits.log_softmax(dim=1)
    outside = ~mask.expand_as(logits)
    # 0 rather than -inf outside: codes are zero there, and 0 * -inf would be NaN.
    return logits.masked_fill(outside, -torch.inf).log_softmax(dim=1).masked_fill(outside, 0.0)
