"""Multi-crop: a few large and several small crops of each image, with their places."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medssl.transforms.crops import CropBoxes, crop, draw_boxes


@dataclass(frozen=True)
class Crops:
    """Crops of a batch, global ones first, and the box of each.

    Args:
        images: one (B, C, *size) per crop.
        boxes: where each lies in the source; see `medssl.transforms.crops.cell_centres`.
    """

    images: list[Tensor]
    boxes: list[CropBoxes]


@dataclass(frozen=True)
class MultiCrop:
    """Global and local crops of a batch, one sampling call per resolution.

    Args:
        global_size: (n,) voxels of a global crop.
        local_size: (n,) voxels of a local crop.
        global_count: number of global crops.
        local_count: number of local crops.
        global_scale: volume fraction of the source, range of a global crop (2D: .14 to 1 in the paper).
        local_scale: of a local crop (2D: .05 to .14 in the paper).
        aspect: stretch of each axis, up to this factor or its inverse.
        angle: largest rotation about each axis, in degrees.

    Reference: Caron et al., NeurIPS 2020, section 3.3.
    """

    global_size: tuple[int, ...]
    local_size: tuple[int, ...]
    global_count: int = 2
    local_count: int = 4
    global_scale: tuple[float, float] = (0.25, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.25)
    aspect: float = 1.2
    angle: float = 0.0

    def __post_init__(self) -> None:
        if len(self.global_size) != len(self.local_size):
            raise ValueError(f"sizes must agree in dimension, got {self.global_size} and {self.local_size}")
        if self.global_count < 1 or self.local_count < 0:
            raise ValueError(
                f"need at least one global crop, got {self.global_count} and {self.local_count} local"
            )

    def draw(self, batch: int, shape: tuple[int, ...], generator: torch.Generator) -> list[CropBoxes]:
        """Boxes of all crops, global ones first; ``shape`` (n,) is that of the source."""
        scales = [self.global_scale] * self.global_count + [self.local_scale] * self.local_count
        return [
            draw_boxes(batch, shape, generator, scale=scale, aspect=self.aspect, angle=self.angle)
            for scale in scales
        ]

    def apply(self, x: Tensor, boxes: list[CropBoxes]) -> Crops:
        """Cut drawn boxes out of ``x`` (B, C, *S)."""
        images = crop(x, boxes[: self.global_count], self.global_size)
        if self.local_count:
            images += crop(x, boxes[self.global_count :], self.local_size)
        return Crops(images, boxes)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Crops:
        """`draw` and `apply`."""
        return self.apply(x, self.draw(len(x), tuple(x.shape[2:]), generator))
