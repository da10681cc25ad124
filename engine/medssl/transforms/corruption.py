"""Corruptions that a network learns to undo (Models Genesis): tone, local order, missing parts.

Batched on the image's device. Deviations from the published code: flips run over the spatial axes (there, one
draw in three hit the channel axis and the last axis was never flipped).

Reference: Zhou et al., "Models Genesis", Medical Image Analysis 2021, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medssl.transforms.draws import uniform

_KNOTS = 1024
_BINS = 2**14
_RANDOM_BITS = 24  # two equal keys in a window keep their order: once in several cubes
_MARGIN = 3  # voxels that painted boxes keep from the border


def bezier_intensity(
    x: Tensor,
    p1: Tensor | Sequence[float],
    p2: Tensor | Sequence[float],
    decreasing: Tensor | bool = False,
) -> Tensor:
    """Map values by a cubic Bezier curve from (0, 0) to (1, 1), a smooth monotone change of contrast.

    With u running from 0 to 1 along the curve, the increasing map sends x(u) to y(u), the decreasing one x(u)
    to y(1 - u). Control points on the diagonal give the identity, or for the decreasing map its mirror.

    Args:
        x: (B, C, *S), or any shape with one curve for all; values outside [0, 1] are clipped.
        p1: first control point (x1, y1) in [0, 1]: (2,), or (B, 2) for one curve per sample.
        p2: second control point (x2, y2), alike.
        decreasing: bool, or (B,) bool: invert the contrast.

    Returns:
        As ``x``, in [0, 1].
    """
    first, second = (torch.as_tensor(p).to(x).reshape(-1, 2, 1) for p in (p1, p2))
    u = torch.linspace(0, 1, _KNOTS, dtype=x.dtype, device=x.device)
    # The curve is followed by its chords, which stay true to it even where it is steep; their values at many
    # equal steps make a table, because finding each voxel's chord costs five times as much.
    curve = 3 * (1 - u) ** 2 * u * first + 3 * (1 - u) * u**2 * second + u**3  # (B or 1, 2, knots)
    places, values = curve[:, 0].contiguous(), curve[:, 1]
    down = torch.as_tensor(decreasing, device=x.device).reshape(-1, 1)
    values = torch.where(down, values.flip(1), values)
    places = places.expand_as(values).contiguous()
    table = _at_bins(places, values)  # (B or 1, bins + 1)
    position = x.clamp(0, 1).reshape(len(values), -1) * _BINS
    low = position.detach().long().clamp_(max=_BINS - 1)
    y0, y1 = table.gather(1, low), table.gather(1, low + 1)
    return (y0 + (y1 - y0) * (position - low)).clamp(0, 1).reshape(x.shape)


def _at_bins(places: Tensor, values: Tensor) -> Tensor:
    """Values of a chain of chords at 0, 1 / bins, ..., 1.

    Args:
        places: (B, knots) increasing from 0 to 1.
        values: (B, knots).

    Returns:
        (B, bins + 1).
    """
    bins = torch.linspace(0, 1, _BINS + 1, dtype=places.dtype, device=places.device)
    right = torch.searchsorted(places, bins.expand(len(places), -1).contiguous()).clamp_(1, _KNOTS - 1)
    x0, x1 = places.gather(1, right - 1), places.gather(1, right)
    y0, y1 = values.gather(1, right - 1), values.gather(1, right)
    return y0 + (y1 - y0) * (bins - x0) / (x1 - x0).clamp(min=torch.finfo(places.dtype).tiny)


def shuffle_sources(
    shape: Sequence[int], generator: torch.Generator, windows: int = 10_000, *, batch: int = 1
) -> Tensor:
    """Where each voxel comes from after shuffling the voxels inside many small windows.

    Every window permutes the voxels of the original image; a later window overwrites an earlier one. All
    samples at once: one entry per voxel of every window, and one sort.

    Args:
        shape: (n,) voxels.
        generator: source of all randomness; the result lies on its device.
        windows: number of windows, each of 1 to max(1, length // 10) voxels along an axis.
        batch: samples B, drawn independently.

    Returns:
        (B, prod(shape)) int64: flat index, within the sample, of the source of each voxel.
    """
    device = generator.device
    edges = [max(1, n // 10) for n in shape]  # plain numbers: a GPU would have to be waited for
    extent, largest = torch.tensor((shape, edges), device=device)
    count, voxels = batch * windows, math.prod(shape)
    sizes = _integers(generator, (count, len(shape)), torch.ones_like(largest), largest)
    starts = _integers(generator, (count, len(shape)), torch.zeros_like(extent), extent - sizes)
    strides = torch.tensor([math.prod(shape[d + 1 :]) for d in range(len(shape))], device=device)
    first = (starts * strides).sum(dim=1) + torch.arange(batch, device=device).repeat_interleave(
        windows
    ) * voxels
    # Offsets of the voxels of a window from its first, for every size there is, one size after the other.
    kinds = torch.cartesian_prod(*(torch.arange(1, n + 1, device=device) for n in edges))
    kinds = kinds.reshape(-1, len(shape))
    kind, local = _entries(kinds.prod(dim=1))
    offset = torch.zeros_like(local)
    for d in reversed(range(len(shape))):
        offset += local % kinds[kind, d] * strides[d]
        local = local // kinds[kind, d]
    begin = kinds.prod(dim=1).cumsum(0) - kinds.prod(dim=1)  # of each size in ``offset``
    order = torch.tensor([math.prod(edges[d + 1 :]) for d in range(len(shape))], device=device)
    owner, local = _entries(sizes.prod(dim=1))
    voxel = first[owner] + offset[begin[((sizes - 1) * order).sum(dim=1)][owner] + local]
    # Sorting by (window, random key) permutes the entries of each window among themselves.
    key = torch.randint(2**_RANDOM_BITS, owner.shape, generator=generator, device=device)
    permuted = voxel[(key + (owner << _RANDOM_BITS)).sort().indices]
    entry = torch.full((batch * voxels,), -1, device=device)
    entry.scatter_reduce_(0, voxel, torch.arange(len(owner), device=device), reduce="amax")
    itself = torch.arange(len(entry), device=device)
    sources = torch.where(entry >= 0, permuted[entry.clamp(min=0)], itself)
    return sources.reshape(batch, voxels) % voxels


def _entries(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For ``counts`` of things, one entry per thing: whose it is, and its number there."""
    owner = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    return owner, torch.arange(len(owner), device=counts.device) - (counts.cumsum(0) - counts)[owner]


def local_shuffle(x: Tensor, sources: Tensor) -> Tensor:
    """Bring every voxel from its source.

    Args:
        x: (B, C, *S).
        sources: (B, prod(S)) from `shuffle_sources`, one row per sample.
    """
    index = sources[:, None].to(x.device).expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, index).reshape(x.shape)


def draw_inner_boxes(batch: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Boxes of in-painting: up to 5, each a sixth to a third of an axis.

    Returns:
        (B, 5, 2, n) int64 first and one-past-last voxel per axis; equal where a box is not used.
    """
    extent = torch.tensor(shape, device=generator.device)
    sizes = _integers(generator, (batch, 5, len(shape)), extent // 6, extent // 3)
    return _place(generator, sizes, extent, first_always=False)


def draw_kept_windows(batch: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Windows that out-painting leaves: 1 to 5, each lacking 3/7 to 4/7 of an axis.

    Returns:
        (B, 5, 2, n) int64 as `draw_inner_boxes`.
    """
    extent = torch.tensor(shape, device=generator.device)
    sizes = extent - _integers(generator, (batch, 5, len(shape)), 3 * extent // 7, 4 * extent // 7)
    return _place(generator, sizes, extent, first_always=True)


def box_mask(boxes: Tensor, shape: Sequence[int]) -> Tensor:
    """Union of the boxes of each sample.

    Args:
        boxes: (B, M, 2, n) first and one-past-last voxel.
        shape: (n,) voxels.

    Returns:
        (B, 1, *shape) bool.
    """
    union = torch.zeros((len(boxes), *shape), dtype=torch.bool, device=boxes.device)
    for m in range(boxes.shape[1]):
        inside = torch.ones((len(boxes), *(1,) * len(shape)), dtype=torch.bool, device=boxes.device)
        for d, size in enumerate(shape):
            place = torch.arange(size, device=boxes.device)
            along = (place >= boxes[:, m, 0, d, None]) & (place < boxes[:, m, 1, d, None])  # (B, size)
            inside = inside & along.reshape(len(boxes), *(size if k == d else 1 for k in range(len(shape))))
        union |= inside
    return union[:, None]


def _place(generator: torch.Generator, sizes: Tensor, extent: Tensor, *, first_always: bool) -> Tensor:
    """Random places for (B, 5, n) sizes; each further box comes with probability .95, after a miss none."""
    low = torch.minimum(torch.full_like(sizes, _MARGIN), (extent - sizes) // 2)
    starts = _integers(generator, sizes.shape, low, extent - sizes - low)
    goes_on = uniform(generator, sizes.shape[:2]) < 0.95
    if first_always:
        goes_on[:, 0] = True
    used = goes_on.cumprod(dim=1)[..., None]
    return torch.stack([starts, starts + sizes * used], dim=2)


def _integers(generator: torch.Generator, shape: Sequence[int], low: Tensor, high: Tensor) -> Tensor:
    """int64 uniform in [low, high], both included."""
    drawn = low + (uniform(generator, shape) * (high - low + 1)).floor().long()
    return torch.minimum(drawn, high)
