"""Swapped prediction: predict the cluster code of one view from another view of the same image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from medssl.losses.gathering import mean_over_world
from medssl.losses.sinkhorn import exponentials, sinkhorn


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
    totals, pairs = [], []
    for v, view in enumerate(scores):
        # cross entropies of one prediction with several codes are that with their sum
        others = [code.detach() for i, code in enumerate(codes) if i != v]
        target = others[0] if len(others) == 1 else torch.stack(others).sum(dim=0)
        single = view.to(torch.promote_types(view.dtype, torch.float32))
        totals.append(_cross_entropy(single, target.to(single), temperature, softmax_mask, len(others)))
        pairs.append(len(others) * len(view))
    total = torch.stack(totals)  # (V,)
    if group is None:
        return total.sum() / max(1, sum(pairs))
    count = total.new_tensor(pairs)
    return mean_over_world(total / count.clamp(min=1), count)


def _cross_entropy(
    scores: Tensor, codes: Tensor, temperature: float, mask: Tensor | None, mass: int
) -> Tensor:
    """Sum of the rows' cross entropies of codes that sum to ``mass`` and softmax(scores / temperature)."""
    return _CrossEntropy.apply(scores, codes, temperature, mask, mass)  # type: ignore[no-any-return,no-untyped-call]


class _CrossEntropy(torch.autograd.Function):
    """Its gradient is the difference of two tensors that are there; log_softmax makes several more passes."""

    @staticmethod
    def forward(  # noqa: PLR0917  as apply hands them on
        ctx: Any, scores: Tensor, codes: Tensor, temperature: float, mask: Tensor | None, mass: int
    ) -> Tensor:
        agreement = torch.dot(scores.flatten(), codes.flatten())
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        terms, highest = exponentials(scores, 1 / temperature)
        totals = terms.sum(dim=1)  # (B,)
        log_totals = totals.log() + highest / temperature
        # codes less predictions
        ctx.save_for_backward(torch.addcmul(codes, terms, (mass / totals)[:, None], value=-1, out=terms))
        ctx.temperature = temperature
        return mass * log_totals.sum() - agreement / temperature

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (difference,) = ctx.saved_tensors
        return difference * (-gradient / ctx.temperature), None, None, None, None
