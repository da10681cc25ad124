"""A view of an image and the cells of it that stay visible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from medssl.errors import InputError
from medssl.transforms.correspondence import turned
from medssl.transforms.crops import crop, draw_boxes
from medssl.transforms.masking import draw_visible


@dataclass(frozen=True)
class MaskedImage:
    """What is to be reconstructed, and what may be seen.

    Args:
        image: (B, C, *S), whole.
        visible: (B, 1, *F) bool, True = seen; S is a multiple of F.
    """

    image: Tensor
    visible: Tensor


@dataclass(frozen=True)
class MaskedView:
    """Random resized crop, mirrored and turned, then a random mask of whole cells.

    Args:
        size: edge of the view in voxels; None keeps the shape of the source.
        cell: (n,) voxels per cell.
        ratio: share of the cells that is hidden.
        scale: volume fraction of the source that the view shows.
        aspect: largest stretch of an axis.
        turn_p: probability that the view is mirrored.
        quarter_turns: turned by quarters too.
        mirror_axes: axes that may be mirrored along; None for all.

    Reference: Tian et al. (SparK), ICLR 2023, sections 3.1 and 4.1.
    """

    size: int | None
    cell: tuple[int, ...]
    ratio: float
    scale: tuple[float, float] = (0.67, 1.0)
    aspect: float = 1.2
    turn_p: float = 1.0
    quarter_turns: bool = False
    mirror_axes: tuple[int, ...] | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any], stride: tuple[int, ...]) -> Self:
        """From values of `medssl.config.masked_image.MaskedImageConfig` by name.

        Args:
            settings: with or without those that are not of the view.
            stride: (n,) voxels of a cell where the settings leave it open.
        """
        cell = stride if settings["cell"] is None else (settings["cell"],) * len(stride)
        names = ("size", "ratio", "scale", "aspect", "turn_p", "quarter_turns", "mirror_axes")
        return cls(cell=cell, **{name: settings[name] for name in names})

    def __call__(self, x: Tensor, generator: torch.Generator) -> MaskedImage:
        """A view of source crops (B, C, *S); all randomness from ``generator``.

        Raises:
            InputError: cells do not tile the view, or none would be hidden or seen.
        """
        source = tuple(x.shape[2:])
        shape = source if self.size is None else (self.size,) * len(source)
        if len(self.cell) != len(shape) or any(n % c for n, c in zip(shape, self.cell, strict=True)):
            raise InputError(
                f"a view of {shape} voxels does not divide into cells of {self.cell}; change settings.size, "
                "settings.cell or sampling.crop"
            )
        boxes = draw_boxes(len(x), source, generator, scale=self.scale, aspect=self.aspect)
        boxes = turned(boxes, generator, self.turn_p, quarters=self.quarter_turns, axes=self.mirror_axes)
        image = crop(x, [boxes], shape)[0]
        grid = tuple(n // c for n, c in zip(shape, self.cell, strict=True))
        try:
            visible = draw_visible(len(x), grid, self.ratio, generator)
        except ValueError as error:
            raise InputError(f"{error}; take smaller cells or a lower settings.ratio") from error
        return MaskedImage(image, visible.to(x.device))
