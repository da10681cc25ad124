"""Graded changes of held-out scans: the same for every model that is judged on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from medssl.config.evaluate import Family
from medssl.transforms.affine import affine_boxes, move
from medssl.transforms.crops import crop
from medssl.transforms.draws import chance
from medssl.transforms.energy import EnergyBands

LARGEST = {
    "gamma": "exponent 2 or 1/2",
    "contrast": "contrast about the middle grey times 1.5 or 0.5, and 0.2 brighter or darker",
    "energy": "each of three bands of detail (1, 2 and 4 voxels) times 3 or 1/3",
    "rotation": "30 degrees in each plane",
    "scaling": "1.5 times larger or smaller",
}
"""What strength 1 is; lower strengths lie between it and no change, on a logarithmic scale for factors."""


def grades(count: int) -> tuple[float, ...]:
    """``count`` strengths in (0, 1], evenly spaced, the largest last."""
    return tuple((number + 1) / count for number in range(count))


def perturb(
    image: Tensor, label: Tensor | None, *, family: Family, strength: float, seed: int, name: str
) -> tuple[Tensor, Tensor | None]:
    """One scan, changed.

    Directions (brighter or darker, left or right) are drawn from ``seed``, ``name`` and ``family`` alone:
    every model sees the same scans, and grades of one family differ in strength only.

    Args:
        image: (1, C, *S) in [0, 1].
        label: (1, 1, *S) integer, moved with the image; None where there is none.
        family: see `LARGEST`.
        strength: in [0, 1]; 0 changes nothing.
        seed: of the evaluation.
        name: of the scan.

    Returns:
        Image (1, C, *S) in [0, 1] and label; -1 where the label is not known any more.
    """
    digest = hashlib.sha256(f"{seed}|{name}|{family}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
    sign = chance(generator, (8,), 0.5).float() * 2 - 1
    if strength == 0:
        return image, label
    if family == "gamma":
        return image.clamp(0, 1) ** (2.0 ** (strength * sign[0])).to(image), label
    if family == "contrast":
        slope = 1 + 0.5 * strength * float(sign[0])
        return ((image - 0.5) * slope + 0.5 + 0.2 * strength * float(sign[1])).clamp(0, 1), label
    if family == "energy":
        bands = EnergyBands((1.0, 2.0, 4.0))
        gains = torch.cat([3.0 ** (strength * sign[: len(bands.sigmas)]), torch.ones(1)])
        return bands.apply(image, gains[None]).clamp(0, 1), label
    shape = tuple(image.shape[2:])
    turn, zoom = torch.zeros(1, len(shape) * (len(shape) - 1) // 2), torch.ones(1, 1)
    if family == "rotation":
        turn = (30.0 * strength * sign[: turn.shape[1]])[None].deg2rad()
    else:
        zoom = zoom * 1.5 ** (strength * sign[0])
    boxes = affine_boxes(turn, zoom, shape)
    if label is None:
        (moved,) = crop(image, [boxes], shape)
        return moved, None
    return move(image, label, boxes)


def area(strengths: Sequence[float], losses: Sequence[float]) -> float:
    """Area under the curve of losses over strengths from 0 (no loss) to 1, by trapezoids."""
    total, before, loss_before = 0.0, 0.0, 0.0
    for strength, loss in zip(strengths, losses, strict=True):
        total += (strength - before) * (loss + loss_before) / 2
        before, loss_before = strength, loss
    return total
