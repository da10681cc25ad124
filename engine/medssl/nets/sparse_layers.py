"""Layers that compute over the visible cells of a mask alone, written as dense operations and masks.

A sparse map is an ordinary map (B, C, *S) that is 0 in every hidden cell. Shapes never depend on the mask, so
that compilers and CUDA graphs accept it, and nothing is gathered or scattered.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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

    def mask(self, x: Tensor, last: bool = False, kind: torch.dtype | None = None) -> Tensor:
        """1 where ``x`` is seen and 0 elsewhere.

        Args:
            x: (B, C, *S), or (B, *S, C) with ``last``; S a multiple or a divisor of the grid.
            last: whether channels come last.
            kind: type of the mask, by default that of ``x``.

        Returns:
            (B, 1, *S), or (B, *S, 1).
        """
        shape = tuple(x.shape[1:-1] if last else x.shape[2:])
        key = (kind or x.dtype, int(last), shape)
        if key not in self._masks:
            mask = self._seen(shape).to(key[0])
            self._masks[key] = mask.movedim(1, -1).contiguous() if last else mask
        return self._masks[key]

    def counts(self, x: Tensor) -> Tensor:
        """Number of seen positions of each sample of a map (B, C, *S), (B, 1) float32."""
        return self._seen(tuple(x.shape[2:])).flatten(1).sum(dim=1, keepdim=True).float()

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


def fill_with_mean(x: Tensor, cells: VisibleCells) -> Tensor:
    """The image as the encoder may see it: hidden cells at the mean of the seen ones, 0 if standardised."""
    shown = show(x, cells)
    return torch.where(cells.mask(x).bool(), shown, global_average(shown, cells))


def global_average(x: Tensor, cells: VisibleCells) -> Tensor:
    """Mean of a sparse map over its seen positions: (B, C, *S) -> (B, C, *1)."""
    # In half precision neither the sum over a volume nor the number of its voxels may fit.
    wide = torch.promote_types(x.dtype, torch.float32)
    mean = x.flatten(2).sum(dim=2, dtype=wide) / cells.counts(x).clamp_min(1)
    return _per_sample(mean.to(x.dtype), x.ndim)


def global_maximum(x: Tensor, cells: VisibleCells) -> Tensor:
    """Largest seen value of a sparse map: (B, C, *S) -> (B, C, *1); 0 where nothing is seen."""
    seen = cells.mask(x).bool()
    lowest = torch.finfo(x.dtype).min
    top = torch.where(seen, x, lowest).flatten(2).amax(dim=2)  # (B, C)
    return _per_sample(torch.where(seen.flatten(1).any(dim=1, keepdim=True), top, 0.0), x.ndim)


def averaged(x: Tensor, cells: VisibleCells, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """`global_average` in the shape of ``x.mean(axes, keepdim)``.

    Raises:
        ValueError: the axes are not all spatial ones.
    """
    if sorted(axis % x.ndim for axis in axes) != list(range(2, x.ndim)):
        raise ValueError(f"a mean over axes {axes} of a map with {x.ndim} has no sparse form")
    pooled = global_average(x, cells)
    return pooled if keepdim else pooled.flatten(1)


def _per_sample(values: Tensor, ndim: int) -> Tensor:
    return values.view(*values.shape, *(1,) * (ndim - 2))
