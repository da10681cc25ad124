"""Crops at any place, size, stretch and angle, and where their cells lie in the image they came from.

Image coordinates are fractions of the source image, in array order: 0 is its first border, 1 its last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from medssl.transforms.draws import uniform


@dataclass(frozen=True)
class CropBoxes:
    """One box per sample, in image coordinates: point = centre + axes @ u, u in [-1/2, 1/2] per axis.

    Args:
        centre: (B, n).
        axes: (B, n, n); diagonal unless the box is rotated.
    """

    centre: Tensor
    axes: Tensor

    def to(self, like: Tensor) -> CropBoxes:
        """The same boxes on the device and in the type of ``like``."""
        return CropBoxes(self.centre.to(like), self.axes.to(like))

    @property
    def extent(self) -> Tensor:
        """(B, n) size of the smallest upright box around each."""
        extent: Tensor = self.axes.abs().sum(dim=2)
        return extent

    def voxel(self, source: Tensor, size: Sequence[int]) -> Tensor:
        """What a voxel of a crop measures along each axis of the crop, (B, n), in the unit of ``source``.

        Args:
            source: (B, n) length of the source image along each of its axes.
            size: (n,) of the crop.
        """
        lengths: Tensor = (self.axes * source.to(self.axes)[:, :, None]).norm(dim=1)
        return lengths / torch.tensor(size).to(lengths)

    def relative(self, points: Tensor) -> Tensor:
        """Where image coordinates (B, P, n) lie in the boxes: 0 is a box's first border, 1 its last."""
        offset = (points - self.centre[:, None]).mT
        relative: Tensor = torch.linalg.solve(self.axes, offset).mT + 0.5
        return relative


def draw_boxes(
    batch: int,
    shape: Sequence[int],
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.25, 1.0),
    aspect: float = 1.2,
    angle: float = 0.0,
) -> CropBoxes:
    """Random boxes inside the image.

    Args:
        batch: B.
        shape: (n,) of the source image, in voxels.
        generator: source of all randomness.
        scale: range of the fraction of the image's volume (area in 2D), uniform.
        aspect: an axis is stretched by up to this factor (in 2D sides are up to its square apart); the volume
            is kept unless a side would be longer than the image's.
        angle: largest rotation about each axis, in degrees. A rotated box too wide for the image along an
            axis is in its middle there, and leaves it at its corners.

    Returns:
        Boxes on the generator's device.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale must lie in (0, 1] in rising order, got {scale}")
    if aspect < 1:
        raise ValueError(f"aspect must be at least 1, got {aspect}")
    n = len(shape)
    most = math.log(aspect) * n / (2 * (n - 1))  # the mean taken off, the largest is log(aspect)
    stretch = uniform(generator, (batch, n), -most, most)
    fraction = uniform(generator, (batch, 1), *scale)
    turn = uniform(generator, (batch, n * (n - 1) // 2), -angle, angle).deg2rad()
    place = uniform(generator, (batch, n))
    extent = fraction ** (1 / n) * (stretch - stretch.mean(dim=1, keepdim=True)).exp()
    extent = extent.clamp(max=1)
    voxels = torch.tensor(shape, dtype=extent.dtype, device=extent.device)
    # Rotation acts on voxels, not on fractions of a non-cubic image.
    axes = rotation(turn, n) * (extent * voxels)[:, None] / voxels[:, None]
    reach = axes.abs().sum(dim=2).clamp(max=1)
    return CropBoxes(reach / 2 + place * (1 - reach), axes)


def crop(
    x: Tensor, boxes: Sequence[CropBoxes], size: Sequence[int], mode: Literal["linear", "nearest"] = "linear"
) -> list[Tensor]:
    """Cut several crops of one size, in one sampling call that never copies the source.

    Args:
        x: (B, C, *S).
        boxes: each with one box per sample.
        size: (n,) of the crops, in voxels.
        mode: ``nearest`` for labels (their type is kept).

    Returns:
        One (B, C, *size) per entry of ``boxes``. Outside the image the border value goes on.
    """
    # Boxes travel to the image's device; a grid of points made here would be thousands of times larger.
    near = [b.to(b.centre.new_empty(0, device=x.device)) for b in boxes]
    points = torch.cat([cell_centres(b, size) for b in near], dim=1)  # (B, V * size_0, ..., n)
    sampled = _sample(x, points, mode)  # (B, C, V * size_0, ...)
    return list(sampled.chunk(len(boxes), dim=2))


def cell_centres(boxes: CropBoxes, shape: Sequence[int]) -> Tensor:
    """Image coordinates of the cells of a crop, or of a feature map over it.

    Args:
        boxes: B boxes.
        shape: (n,) cells per axis.

    Returns:
        (B, *shape, n).
    """
    centre, axes = boxes.centre, boxes.axes
    marks = [(torch.arange(s, device=centre.device, dtype=centre.dtype) + 0.5) / s - 0.5 for s in shape]
    points = centre.reshape(len(centre), *(1,) * len(shape), -1)
    for d, mark in enumerate(marks):
        # Broadcasting axis by axis is far cheaper than a matrix product per cell.
        along = mark.reshape(-1, *(1,) * (len(shape) - d))  # (size_d, 1, ..., 1)
        points = points + along * axes[:, :, d].reshape(len(centre), *(1,) * len(shape), -1)
    return points


def sample_at(features: Tensor, boxes: CropBoxes, points: Tensor) -> tuple[Tensor, Tensor]:
    """Features of a crop at places of the image, linearly interpolated between cells.

    Args:
        features: (B, C, *F) map over the crops.
        boxes: where the crops lie.
        points: (B, P, n) image coordinates.

    Returns:
        (B, C, P) features, and (B, P) bool: whether the place is inside the crop.
    """
    inside = boxes.to(points).relative(points)  # (B, P, n)
    spread = inside.reshape(*inside.shape[:2], *(1,) * (features.ndim - 3), -1)
    sampled = _sample(features, spread.to(features.device), "linear").flatten(2)
    return sampled, ((inside >= 0) & (inside <= 1)).all(dim=-1)


def _sample(x: Tensor, points: Tensor, mode: Literal["linear", "nearest"]) -> Tensor:
    """Values at image coordinates (B, *G, n), as (B, C, *G)."""
    # Coordinates in half precision would be off by a voxel.
    source = x if x.dtype in {torch.float32, torch.float64} else x.float()
    # grid_sample wants (x, y, z) in [-1, 1]; "bilinear" means linear in any dimension.
    values = functional.grid_sample(
        source,
        (2 * points - 1).flip(-1).to(source.dtype),
        mode="bilinear" if mode == "linear" else "nearest",
        padding_mode="border",
        align_corners=False,
    )
    return values.to(x.dtype)


def rotation(turn: Tensor, n: int) -> Tensor:
    """Rotation matrices (B, n, n) from one angle per pair of axes (B, n (n - 1) / 2), in radians."""
    matrix = torch.eye(n, device=turn.device, dtype=turn.dtype).expand(len(turn), n, n)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    for k, (i, j) in enumerate(pairs):
        plane = torch.eye(n, device=turn.device, dtype=turn.dtype).repeat(len(turn), 1, 1)
        plane[:, i, i] = plane[:, j, j] = turn[:, k].cos()
        plane[:, i, j], plane[:, j, i] = -turn[:, k].sin(), turn[:, k].sin()
        matrix = matrix @ plane
    return matrix
