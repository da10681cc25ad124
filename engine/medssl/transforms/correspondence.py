"""Places of the source image that two crops share, and the features of both there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medssl.transforms.crops import CropBoxes, sample_at
from medssl.transforms.spatial import draw_orthogonal


def turned(
    box: CropBoxes,
    generator: torch.Generator,
    p: float = 1.0,
    *,
    quarters: bool = True,
    axes: Sequence[int] | None = None,
) -> CropBoxes:
    """The same boxes, each with probability ``p`` moved by a random symmetry: its axes permuted and negated.

    Args:
        box: B boxes.
        generator: source of all randomness.
        p: probability that a box is moved.
        quarters: turned too; mirrored alone else.
        axes: that may be mirrored along; None for all. Not with ``quarters``.
    """
    batch, n = box.centre.shape
    ops = draw_orthogonal(batch, n, generator, rotate=quarters, axes=axes, p=p)
    order = ops.permutation[:, None].expand(-1, n, -1).to(box.axes.device)
    edges = box.axes.gather(2, order)
    return CropBoxes(box.centre, torch.where(ops.flip[:, None].to(edges.device), -edges, edges))


def random_places(
    first: CropBoxes, second: CropBoxes, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random places of the first crop; as many as possible lie in the second too.

    Args:
        first: B boxes.
        second: B boxes of the same images.
        count: P places per image.
        generator: source of all randomness.

    Returns:
        Image coordinates (B, P, n), and (B, P) bool, whether a place really lies in both.
    """
    places, inside = _candidates(first, second, count, generator)
    return _first(places, inside, count)


FOREGROUND = 0.05
"""Normalised intensity at and below which a place is air."""


def shared_places(
    image: Tensor, first: CropBoxes, second: CropBoxes, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random places of the first crop; as many as possible lie in the second too, and not in air.

    Air looks the same everywhere: an assignment that must share prototypes out evenly would have to
    tell its cells apart, which no feature can.

    Args:
        image: (B, C, *S) source in [0, 1]; its first channel says where air is.
        first: B boxes.
        second: B boxes of the same images.
        count: P places per image.
        generator: source of all randomness.

    Returns:
        Image coordinates (B, P, n), and (B, P) bool, whether a place really lies in both and not in air.
    """
    places, inside = _candidates(first, second, count, generator)
    eye = torch.eye(places.shape[-1]).to(first.axes)
    whole = CropBoxes(torch.full_like(first.centre, 0.5), eye.expand_as(first.axes))
    brightness = sample_at(image[:, :1], whole, places)[0][:, 0].to(places.device)
    return _first(places, inside & (brightness > FOREGROUND), count)


def sample_levels(levels: Sequence[Tensor], box: CropBoxes, places: Tensor) -> Tensor:
    """Feature maps of one crop at places of the source, concatenated: [(B, C_i, *F_i)] -> (B, P, sum C)."""
    return torch.cat([sample_at(level, box, places)[0] for level in levels], dim=1).transpose(1, 2)


def _candidates(
    first: CropBoxes, second: CropBoxes, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Four times as many places of the first crop (B, 4P, n), and whether they lie in the second."""
    batch, n = first.centre.shape
    offsets = torch.rand(batch, 4 * count, n, generator=generator, device=generator.device) - 0.5
    places = first.centre[:, None] + offsets @ first.axes.mT
    relative = second.relative(places)
    return places, ((relative >= 0) & (relative <= 1)).all(-1)


def _first(places: Tensor, wanted: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``count`` of the places (B, 4P, n), wanted ones first, and whether they are."""
    order = wanted.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
    return places.gather(1, order[..., None].expand(-1, -1, places.shape[-1])), wanted.gather(1, order)
