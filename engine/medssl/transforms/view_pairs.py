"""Two random views of every image, and where each lies: what contrastive and matching methods compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from medssl.transforms.correspondence import turned
from medssl.transforms.crops import CropBoxes
from medssl.transforms.multicrop import MultiCrop
from medssl.transforms.view_intensity import ViewIntensity


@dataclass(frozen=True)
class ViewPair:
    """Two views of one batch.

    Args:
        images: two of (B, C, *size), in [0, 1].
        boxes: where each lies in the source, flips and quarter turns included.
    """

    images: tuple[Tensor, Tensor]
    boxes: tuple[CropBoxes, CropBoxes]


@dataclass(frozen=True)
class ViewPairs:
    """Two crops, mirrored and turned, each with intensities of its own.

    Args:
        crops: size, scale, stretch and rotation; two global crops, no local ones.
        intensity: energy bands, window, tone, gamma, bias, linear, blur, noise.
        turn_p: probability that a crop is mirrored.
        quarter_turns: turned by quarters too.
        mirror_axes: axes that may be mirrored along; None for all.
    """

    crops: MultiCrop
    intensity: ViewIntensity
    turn_p: float = 1.0
    quarter_turns: bool = False
    mirror_axes: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        size: tuple[int, ...],
        intensity: Mapping[str, Any],
        *,
        scale: tuple[float, float],
        aspect: float = 1.2,
        angle: float = 0.0,
        turn_p: float = 1.0,
        quarter_turns: bool = False,
        mirror_axes: tuple[int, ...] | None = None,
    ) -> Self:
        """From plain settings.

        Args:
            size: (n,) voxels of a view.
            intensity: values of `medssl.config.augmentation.IntensityConfig` by name.
            scale: range of the volume fraction of a crop.
            aspect: largest stretch of an axis.
            angle: largest rotation, degrees.
            turn_p: probability that a crop is mirrored.
            quarter_turns: turned by quarters too.
            mirror_axes: axes that may be mirrored along; None for all.
        """
        crops = MultiCrop(size, size, local_count=0, global_scale=scale, aspect=aspect, angle=angle)
        return cls(crops, ViewIntensity.of(intensity), turn_p, quarter_turns, mirror_axes)

    def __call__(self, x: Tensor, generator: torch.Generator, spacing: Tensor) -> ViewPair:
        """Two views; all randomness from ``generator``.

        Args:
            x: (B, C, *S) in [0, 1].
            generator: source of all randomness.
            spacing: (B, n) mm per voxel of ``x``.
        """
        drawn = self.crops.draw(len(x), tuple(x.shape[2:]), generator)
        quarters, axes = self.quarter_turns, self.mirror_axes
        first, second = (turned(box, generator, self.turn_p, quarters=quarters, axes=axes) for box in drawn)
        length = spacing * torch.tensor(x.shape[2:]).to(spacing)
        one, two = (
            self.intensity(view, generator, box.voxel(length, view.shape[2:]))
            for view, box in zip(self.crops.apply(x, [first, second]).images, (first, second), strict=True)
        )
        return ViewPair((one, two), (first, second))
