"""Layers that compute over the visible cells of a mask alone, written as dense operations and masks.

A sparse map is an ordinary map (B, C, *S) that is 0 in every hidden cell. Shapes never depend on the mask, so
that compilers and CUDA graphs accept it, and nothing is gathered or scattered.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm


class VisibleCells:
    """The mask of one forward pass, brought once to every resolution that asks for it.

    It travels with the data from layer to layer: two passes, two models or two threads never share it.

    Args:
        visible: (B, 1, *F), True where a cell of the grid is seen. A map that is coarser than the grid counts
            as seen everywhere (S3D: the levels below the mask are dense).
    """

    def __init__(self, visible: Tensor) -> None:
        self.cells = visible.bool()
        self._masks: dict[tuple[torch.dtype, int, tuple[int, ...]], Tensor] = {}

    def mask(self, x: Tensor, last: bool = False) -> Tensor:
        """1 where ``x`` is seen and 0 elsewhere, in its type.

        Args:
            x: (B, C, *S), or (B, *S, C) with ``last``; S a multiple or a divisor of the grid.
            last: whether channels come last.

        Returns:
            (B, 1, *S), or (B, *S, 1).
        """
        shape = tuple(x.shape[1:-1] if last else x.shape[2:])
        key = (x.dtype, int(last), shape)
        if key not in self._masks:
            mask = self._seen(shape).to(x.dtype)
            self._masks[key] = mask.movedim(1, -1).contiguous() if last else mask
        return self._masks[key]

    def counts(self, x: Tensor) -> Tensor:
        """Number of seen positions of each sample of a map (B, C, *S), (B, 1) float32, at least 1."""
        return self._seen(tuple(x.shape[2:])).flatten(1).sum(dim=1, keepdim=True).float().clamp_min(1)

    def _seen(self, shape: tuple[int, ...]) -> Tensor:
        grid = tuple(self.cells.shape[2:])
        if (
            len(grid) == len(shape)
            and shape != grid
            and not any(f % s for s, f in zip(shape, grid, strict=True))
        ):
            return self.cells.new_ones((len(self.cells), 1, *shape))
        return upsample_mask(self.cells, shape)


def upsample_mask(visible: Tensor, shape: Sequence[int]) -> Tensor:
    """The mask at a finer resolution, each cell repeated.

    Args:
        visible: (B, 1, *F).
        shape: (n,), a multiple of F on every axis.

    Returns:
        (B, 1, *shape).

    Raises:
        ValueError: the shape is no such multiple.
    """
    grid = tuple(visible.shape[2:])
    if len(grid) != len(shape) or any(size % cells for size, cells in zip(shape, grid, strict=True)):
        raise ValueError(f"shape {tuple(shape)} is not a multiple of the mask {grid}")
    for axis, (size, cells) in enumerate(zip(shape, grid, strict=True), start=2):
        visible = visible.repeat_interleave(size // cells, dim=axis)
    return visible


def show(x: Tensor, cells: VisibleCells) -> Tensor:
    """The image as the encoder may see it: 0 in hidden cells whatever stands there, NaN too."""
    return torch.where(cells.mask(x).bool(), x, 0.0)


def hide(x: Tensor, cells: VisibleCells) -> Tensor:
    """A map (B, C, *S) with its hidden cells at 0."""
    return x * cells.mask(x)


def hide_(x: Tensor, cells: VisibleCells) -> Tensor:
    """`hide` in place, for a map that nothing else holds: half the memory traffic."""
    return x.mul_(cells.mask(x))


def hide_last(x: Tensor, cells: VisibleCells) -> Tensor:
    """A map with channels last (B, *S, C), its hidden cells at 0."""
    return x * cells.mask(x, last=True)


def batch_norm(module: _BatchNorm, x: Tensor, cells: VisibleCells) -> Tensor:
    """Batch norm of a sparse map: equal to batch norm of the seen positions as rows.

    mean = sum x / n and var = sum (x - mean)^2 / n over the n seen positions of the batch; running statistics
    take var * n / (n - 1). With `SyncBatchNorm` sums run over all processes.

    Args:
        module: its weights and running statistics.
        x: (B, C, *S), 0 where hidden.
        cells: the mask.

    Returns:
        (B, C, *S), 0 where hidden.

    Reference: Tian et al. (SparK), ICLR 2023, section 3.1; the dense form of the sums is ours.
    """
    batch_statistics = module.training or module.running_mean is None
    if not batch_statistics:
        mean, variance = module.running_mean, module.running_var
        normal = F.batch_norm(x, mean, variance, module.weight, module.bias, eps=module.eps)
        return hide_(normal, cells)
    wide, mask = _wide(x, cells)
    together = isinstance(module, nn.SyncBatchNorm)
    dims = [0, *range(2, x.ndim)]
    count = cells.counts(x).sum()
    count = _over_processes(count) if together else count

    def mean_over(values: Tensor) -> Tensor:
        total = values.sum(dims)
        return (_over_processes(total) if together else total) / count  # (C,)

    mean = mean_over(wide)
    centred = (wide - _per_channel(mean, x.ndim)) * mask
    variance = mean_over(centred.square())
    if module.training and module.running_mean is not None and module.running_var is not None:
        rate = _rate(module)
        _move(module.running_mean, mean, rate)
        _move(module.running_var, variance * (count / (count - 1).clamp_min(1)), rate)
    scale = (variance + module.eps).rsqrt()
    scale = scale if module.weight is None else scale * module.weight
    return _scaled(centred, mask, _per_channel(scale, x.ndim), module.bias).to(x.dtype)


def group_norm(module: nn.GroupNorm | _InstanceNorm, x: Tensor, cells: VisibleCells) -> Tensor:
    """Group or instance norm of a sparse map, each sample over its own seen positions.

    Args:
        module: its weights; an instance norm has one group per channel.
        x: (B, C, *S), 0 where hidden.
        cells: the mask.

    Returns:
        (B, C, *S), 0 where hidden.
    """
    if isinstance(module, _InstanceNorm) and module.track_running_stats and not module.training:
        mean, variance = module.running_mean, module.running_var
        return hide(F.batch_norm(x, mean, variance, module.weight, module.bias, eps=module.eps), cells)
    groups = module.num_groups if isinstance(module, nn.GroupNorm) else x.shape[1]
    wide, mask = _wide(x, cells)
    width = x.shape[1] // groups
    count = cells.counts(x)  # (B, 1)

    def mean_over(values: Tensor) -> Tensor:
        total = values.flatten(2).sum(dim=2).unflatten(1, (groups, width)).sum(dim=2)  # (B, G)
        return (total / (count * width)).repeat_interleave(width, dim=1)  # (B, C)

    mean = mean_over(wide)
    centred = (wide - _per_sample(mean, x.ndim)) * mask
    variance = mean_over(centred.square())
    if isinstance(module, _InstanceNorm) and module.track_running_stats and module.training:
        rate = module.momentum or 0.0  # of instance norm: None is 0
        unbiased = variance * (count / (count - 1).clamp_min(1))
        _move(module.running_mean, mean.mean(dim=0), rate)
        _move(module.running_var, unbiased.mean(dim=0), rate)
    weight = module.weight
    scale = (variance + module.eps).rsqrt()
    scale = scale if weight is None else scale * weight
    return _scaled(centred, mask, _per_sample(scale, x.ndim), module.bias).to(x.dtype)


def global_average(x: Tensor, cells: VisibleCells) -> Tensor:
    """Mean of a sparse map over its seen positions: (B, C, *S) -> (B, C, *1)."""
    total = x.flatten(2).sum(dim=2) / cells.counts(x).to(x.dtype)
    return _per_sample(total, x.ndim)


def global_maximum(x: Tensor, cells: VisibleCells) -> Tensor:
    """Largest seen value of a sparse map: (B, C, *S) -> (B, C, *1); 0 where nothing is seen."""
    seen = cells.mask(x).bool()
    lowest = torch.finfo(x.dtype).min
    top = torch.where(seen, x, lowest).flatten(2).amax(dim=2)  # (B, C)
    return _per_sample(torch.where(seen.flatten(1).any(dim=1, keepdim=True), top, 0.0), x.ndim)


def averaged(x: Tensor, cells: VisibleCells, keepdim: bool) -> Tensor:
    """`global_average` in the shape of ``x.mean`` over all spatial axes."""
    pooled = global_average(x, cells)
    return pooled if keepdim else pooled.flatten(1)


def _wide(x: Tensor, cells: VisibleCells) -> tuple[Tensor, Tensor]:
    """Map and mask in at least 32 bits: sums over many positions need them."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return wide, cells.mask(wide)


def _scaled(centred: Tensor, mask: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    normal = centred * scale
    # the bias at seen positions only: one pass instead of an addition and a mask
    return normal if bias is None else torch.addcmul(normal, mask, _per_channel(bias, normal.ndim))


def _per_channel(values: Tensor, ndim: int) -> Tensor:
    return values.view(1, -1, *(1,) * (ndim - 2))


def _per_sample(values: Tensor, ndim: int) -> Tensor:
    return values.view(*values.shape, *(1,) * (ndim - 2))


def _rate(module: _BatchNorm) -> float | Tensor:
    """How far running statistics move; a momentum of None makes them plain means over all batches."""
    if module.num_batches_tracked is not None:
        module.num_batches_tracked.add_(1)
        if module.momentum is None:
            return 1 / module.num_batches_tracked.float()
    return module.momentum or 0.0


@torch.no_grad()
def _move(running: Tensor, new: Tensor, rate: float | Tensor) -> None:
    running.add_((new.to(running) - running) * rate)


def _over_processes(values: Tensor) -> Tensor:
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    from torch.distributed.nn.functional import all_reduce  # noqa: PLC0415  builds without it have no processes

    total: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return total
