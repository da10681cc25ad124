"""Small rotations and zooms that move an image and its labels together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medssl.transforms.crops import CropBoxes, cell_centres, crop, rotation
from medssl.transforms.draws import chance, uniform


def draw_affine(
    batch: int,
    shape: Sequence[int],
    generator: torch.Generator,
    *,
    angle: float = 15.0,
    scaling: float = 1.15,
    p: float = 1.0,
) -> CropBoxes:
    """A box about the middle of each sample, turned and zoomed; it may leave the sample.

    Args:
        batch: B.
        shape: (n,) voxels of the samples.
        generator: source of all randomness.
        angle: largest rotation in each plane, degrees.
        scaling: largest zoom, in and out, log-uniform.
        p: probability that a sample is moved at all.
    """
    n = len(shape)
    moved = chance(generator, (batch, 1), p)
    turn = uniform(generator, (batch, n * (n - 1) // 2), -angle, angle).deg2rad() * moved
    zoom = (uniform(generator, (batch, 1), -math.log(scaling), math.log(scaling)) * moved).exp()
    return affine_boxes(turn, zoom, shape)


def affine_boxes(turn: Tensor, zoom: Tensor, shape: Sequence[int]) -> CropBoxes:
    """Boxes about the middle of each sample.

    Args:
        turn: (B, n (n - 1) / 2) rotation in each plane, radians.
        zoom: (B, 1) size of the box relative to the sample; what lies in it shrinks by as much.
        shape: (n,) voxels of the samples.
    """
    n = len(shape)
    voxels = torch.tensor(shape, dtype=zoom.dtype, device=zoom.device)
    extent = zoom * voxels  # in voxels, where a rotation is one
    axes = rotation(turn, n) * extent[:, None] / voxels[:, None]
    return CropBoxes(torch.full((len(zoom), n), 0.5, device=zoom.device), axes)


def move(image: Tensor, label: Tensor, boxes: CropBoxes, unlabelled: int = -1) -> tuple[Tensor, Tensor]:
    """Sample the boxes: the image linearly, the label from the nearest voxel.

    Args:
        image: (B, C, *S).
        label: (B, 1, *S) integers.
        boxes: from `draw_affine`; a box that is the sample itself leaves it as it is.
        unlabelled: label of what lies beyond the sample, where the border value of the image goes on.

    Returns:
        Image (B, C, *S) and label (B, 1, *S).
    """
    size = tuple(image.shape[2:])
    (moved,) = crop(image, [boxes], size)
    (known,) = crop(label, [boxes], size, mode="nearest")
    points = cell_centres(boxes, size).to(label.device)
    outside = ((points < 0) | (points > 1)).any(dim=-1)[:, None]
    return moved, known.masked_fill(outside, unlabelled)
