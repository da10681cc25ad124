"""Rows of all processes as one tensor, with gradients to where they came from."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_group() -> dist.ProcessGroup | None:
    """The group of all processes; None where there is only this one."""
    return dist.group.WORLD if dist.is_available() and dist.is_initialized() else None


def world_size() -> int:
    """Number of processes."""
    return 1 if world_group() is None else dist.get_world_size()


def gather_rows(x: Tensor) -> Tensor:
    """The rows of all processes, those of the first process first; ``x`` itself with one process.

    A collective call: every process must make it; their row counts may differ. The gradient of a row is
    the sum over all processes of what they derive for it, so a loss that every process computes from all
    rows has, averaged over processes as DDP does, the gradient of one process with the whole batch.

    Args:
        x: (B, ...), B of this process.

    Returns:
        (sum of B, ...).
    """
    if world_size() == 1:
        return x
    return _Gather.apply(x)  # type: ignore[no-any-return,no-untyped-call]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        count = torch.tensor([len(x)], device=x.device)
        counts = [torch.zeros_like(count) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, count)
        sizes = [int(n) for n in counts]
        padded = x.new_zeros(max(sizes), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        ctx.mine = slice(sum(sizes[: dist.get_rank()]), sum(sizes[: dist.get_rank() + 1]))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.mine]


def mean_over_world(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean, in such a share that the mean over processes is that over the values of all.

    A collective call. With one process a plain weighted mean; 0 where nothing has a weight. Processes may
    bring different numbers of values: a mean of their means would be another.

    Args:
        values: any shape; those of weight 0 may be anything, NaN too.
        weights: of the same shape, >= 0, or bool: which values are used. They take no gradient.

    Returns:
        Scalar.
    """
    weights = weights.detach().to(values.dtype)
    total = total_over_world(weights.sum())
    weighted = (values.masked_fill(weights == 0, 0) * weights).sum()
    return world_size() * weighted / torch.where(total > 0, total, torch.ones_like(total))


def total_over_world(x: Tensor) -> Tensor:
    """Sum over processes, without gradient; a collective call. A copy of ``x`` with one process."""
    total = x.detach().clone()
    if world_group() is not None:
        dist.all_reduce(total)
    return total
