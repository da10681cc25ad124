"""Normalisation of sparse maps by the statistics of their seen positions."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from medssl.nets.sparse_layers import VisibleCells, hide_
from medssl.nets.synced_norm import SyncedBatchNorm


def batch_norm(module: _BatchNorm, x: Tensor, cells: VisibleCells) -> Tensor:
    """Batch norm of a sparse map: equal to batch norm of the seen positions as rows.

    mean = sum x / n and var = sum (x - mean)^2 / n over the n seen positions of the batch; running statistics
    take var * n / (n - 1). Synchronised norms sum over all processes.

    Args:
        module: its weights and running statistics.
        x: (B, C, *S); what stands in hidden cells does not count.
        cells: the mask.

    Returns:
        (B, C, *S), 0 where hidden.

    Reference: Tian et al. (SparK), ICLR 2023, section 3.1; the dense form of the sums is ours.
    """
    if not module.training and module.running_mean is not None:
        return _by_running(module, x, cells)
    together = isinstance(module, (nn.SyncBatchNorm, SyncedBatchNorm))
    count = cells.counts(x).sum().view(1, 1)
    count = (_over_processes(count) if together else count).clamp_min(1)
    y, mean, variance = _normalise(module, x, cells, count, groups=0, together=together)
    if module.training and module.running_mean is not None:
        rate: float | Tensor = module.momentum or 0.0
        if module.num_batches_tracked is not None:
            module.num_batches_tracked.add_(1)
            if module.momentum is None:  # a plain mean over all batches
                rate = 1 / module.num_batches_tracked.float()
        _move(module.running_mean, mean[0], rate)
        _move(module.running_var, _unbiased(variance, count)[0], rate)
    return y


def group_norm(module: nn.GroupNorm | _InstanceNorm, x: Tensor, cells: VisibleCells) -> Tensor:
    """Group or instance norm of a sparse map, each sample over its own seen positions.

    Args:
        module: its weights; an instance norm has one group per channel.
        x: (B, C, *S); what stands in hidden cells does not count.
        cells: the mask.

    Returns:
        (B, C, *S), 0 where hidden.
    """
    tracked = isinstance(module, _InstanceNorm) and module.track_running_stats
    if tracked and not module.training:
        return _by_running(cast("_InstanceNorm", module), x, cells)
    groups = module.num_groups if isinstance(module, nn.GroupNorm) else x.shape[1]
    count = cells.counts(x).clamp_min(1)  # (B, 1)
    y, mean, variance = _normalise(module, x, cells, count * (x.shape[1] // groups), groups=groups)
    if tracked:
        module = cast("_InstanceNorm", module)
        rate = module.momentum or 0.0  # here None is 0
        _move(module.running_mean, mean.mean(dim=0), rate)
        _move(module.running_var, _unbiased(variance, count).mean(dim=0), rate)
    return y


def _by_running(module: _BatchNorm | _InstanceNorm, x: Tensor, cells: VisibleCells) -> Tensor:
    mean, variance = module.running_mean, module.running_var
    return hide_(F.batch_norm(x, mean, variance, module.weight, module.bias, eps=module.eps), cells)


def _normalise(
    module: _BatchNorm | _InstanceNorm | nn.GroupNorm,
    x: Tensor,
    cells: VisibleCells,
    count: Tensor,
    *,
    groups: int,
    together: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The normal map in the type of ``x``, and mean and variance (B or 1, C)."""
    kind = torch.promote_types(x.dtype, torch.float32)  # sums over many positions need 32 bits
    mask = cells.mask(x, kind=kind)
    weight = x.new_ones(x.shape[1], dtype=kind) if module.weight is None else module.weight
    bias = x.new_zeros(x.shape[1], dtype=kind) if module.bias is None else module.bias
    arguments = (x, mask, count.to(kind), weight, bias, module.eps, groups, together)
    if torch.compiler.is_compiling() and not together:
        y, mean, variance, _, _ = _formula(*arguments)  # a compiler fuses the passes by itself
    else:
        y, mean, variance = _MaskedNorm.apply(*arguments)  # type: ignore[no-untyped-call]
    return y.to(x.dtype), mean, variance


def _formula(  # noqa: PLR0917  as autograd passes them
    x: Tensor,
    mask: Tensor,
    count: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    groups: int,
    together: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The normal map, mean and variance (B or 1, C), m (x - mean), and 1 / sqrt(var + eps)."""
    centred = x * mask
    mean = _pooled(_per_map(centred), groups, together) / count
    centred = centred.addcmul_(mask, _spread(-mean, x))
    variance = _pooled(_per_map(centred.square()), groups, together) / count
    scale = (variance + eps).rsqrt()
    y = (centred * _spread(scale * weight, x)).addcmul_(mask, _spread(bias[None], x))
    return y, mean, variance, centred, scale


class _MaskedNorm(torch.autograd.Function):
    """y = m ((x - mean) / sqrt(var + eps) w + b), with as few passes over the map as possible.

    Autograd's own backward of the same formula takes about twice as many, and maps are larger than any cache.
    With g = m dL/dy, c = m (x - mean), r = 1 / sqrt(var + eps) and the mean over seen positions E:
    dL/dx = m r (w g - E[w g] - c r^2 E[w g c]).
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, variance, centred, scale = _formula(*arguments)
        x, mask, count, weight, _, _, ctx.groups, ctx.together = arguments
        ctx.save_for_backward(centred, mask, count, scale, weight)
        ctx.kind = x.dtype
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _mean: Tensor, _variance: Tensor) -> Any:
        centred, mask, count, scale, weight = ctx.saved_tensors
        seen = gradient * mask
        sums = _per_map(seen)  # (B, C)
        products = _per_map(seen * centred)
        first = _pooled(sums * weight, ctx.groups, ctx.together) / count
        second = _pooled(products * weight, ctx.groups, ctx.together) / count
        seen.mul_(_spread(scale * weight, seen))
        seen.addcmul_(centred, _spread(-second * scale**3, seen))
        seen.addcmul_(mask, _spread(-first * scale, seen))
        return seen.to(ctx.kind), None, None, (products * scale).sum(0), sums.sum(0), None, None, None


def _per_map(x: Tensor) -> Tensor:
    """(B, C, *S) -> sums (B, C)."""
    return x.flatten(2).sum(dim=2)


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """(B or 1, C) -> (B or 1, C, *1)."""
    return values.view(*values.shape, *(1,) * (like.ndim - 2))


def _pooled(sums: Tensor, groups: int, together: bool) -> Tensor:
    """Sums (B, C) over the batch, (1, C), where ``groups`` is 0, else over the channels of groups, (B, C)."""
    if groups == 0:
        total = sums.sum(dim=0, keepdim=True)
        return _over_processes(total) if together else total
    width = sums.shape[1] // groups
    return sums.view(-1, groups, width).sum(dim=2).repeat_interleave(width, dim=1)


def _over_processes(values: Tensor) -> Tensor:
    """Sum over all processes; a collective call."""
    total = values.clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
    return total


def _unbiased(variance: Tensor, count: Tensor) -> Tensor:
    return variance * (count / (count - 1).clamp_min(1))


@torch.no_grad()
def _move(running: Tensor | None, new: Tensor, rate: float | Tensor) -> None:
    if running is not None:
        running.add_((new.to(running) - running) * rate)
