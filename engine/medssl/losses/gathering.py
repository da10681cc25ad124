"""Rows of all processes as one tensor, with gradients to where they came from."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_group() -> dist.ProcessGroup | None:
    """The group of all processes; None where there is only this one."""
    return dist.group.WORLD if dist.is_available() and dist.is_initialized() else None


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
    if world_group() is None or dist.get_world_size() == 1:
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


def mean_over_world(values: Tensor, used: Tensor) -> Tensor:
    """Mean of the used values, in such a share that the mean over processes is that of all used values.

    A collective call. With one process a plain masked mean; 0 where nothing is used.

    Args:
        values: any shape.
        used: bool of the same shape.

    Returns:
        Scalar.
    """
    count = used.sum().to(values.dtype)
    share = 1
    if world_group() is not None:
        share = dist.get_world_size()
        dist.all_reduce(count)
    return share * values.masked_fill(~used, 0).sum() / count.clamp(min=1)
