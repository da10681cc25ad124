"""Generated volumes: random anatomy-like label maps, and renderings that give each label a grey value.

After Dey et al., "Learning general-purpose biomedical volume representations using randomized synthesis",
ICLR 2025; shapes and ranges are ours. No real image is involved, so any number of contrasts can be shown
of one anatomy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medssl.transforms.draws import chance, integers, normal, uniform
from medssl.transforms.separable import apply_separable

_FIELDS = 12
_BODIES = 8
LABELS = _FIELDS + 2 * _BODIES
"""Largest number of labels in a map."""


def random_label_maps(count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Label maps of tissues and bodies.

    Tissues are the argmax of 4 to 12 smooth noise fields of correlation length 4 to 14 voxels. Over them
    lie 2 to 8 ellipsoids with noisy surfaces, radii from 2 voxels to 0.3 of the edge; three in ten are cored.

    Args:
        count: B.
        shape: (n,) voxels.
        generator: source of all randomness; its device is that of the result.

    Returns:
        (B, *S) int64 in [0, LABELS).
    """
    n = len(shape)
    length = uniform(generator, (count,), 4.0, 14.0)
    fields = smooth_noise(count, _FIELDS, shape, length, generator)
    tissues = integers(generator, (count, 1), _FIELDS - 3) + 4
    unused = torch.arange(_FIELDS, device=fields.device) >= tissues  # (B, fields)
    fields.masked_fill_(unused.view(count, -1, *(1,) * n), -torch.inf)
    labels = fields.max(dim=1).indices  # on a CPU six times faster than argmax
    edge = torch.tensor(shape, dtype=torch.float32, device=fields.device)
    surface = 0.3 * smooth_noise(count, 1, shape, torch.full_like(length, 6.0), generator)[:, 0]
    bodies = integers(generator, (count,), _BODIES - 1) + 2
    for body in range(_BODIES):
        centre = uniform(generator, (count, n)) * edge
        radius = (uniform(generator, (count, n)) * (0.3 * edge / 2).log()).exp() * 2
        distance = _ellipsoid_distance(shape, centre, radius) + surface
        drawn = (bodies > body).view(count, *(1,) * n)
        labels = torch.where(drawn & (distance < 1), _FIELDS + body, labels)
        cored = chance(generator, (count,), 0.3).view(count, *(1,) * n)
        labels = torch.where(drawn & cored & (distance < 0.6), _FIELDS + _BODIES + body, labels)
    return labels


def render(labels: Tensor, generator: torch.Generator) -> Tensor:
    """One contrast of a label map: mean U(0, 1) and texture noise of sd U(0, 0.07) per label.

    Args:
        labels: (B, *S) in [0, LABELS).
        generator: source of all randomness.

    Returns:
        (B, 1, *S) float32 in [0, 1].
    """
    count = len(labels)
    flat = labels.flatten(1)
    mean = uniform(generator, (count, LABELS)).gather(1, flat)
    sd = uniform(generator, (count, LABELS), 0.0, 0.07).gather(1, flat)
    values = mean + sd * normal(generator, tuple(flat.shape))
    return values.view(labels.shape)[:, None].clamp(0, 1)


def smooth_noise(
    count: int, channels: int, shape: Sequence[int], length: Tensor, generator: torch.Generator
) -> Tensor:
    """Gaussian noise on a coarse lattice, interpolated linearly.

    Args:
        count: B.
        channels: C independent fields.
        shape: (n,) voxels.
        length: (B,) distance of the lattice points in voxels.
        generator: source of all randomness.

    Returns:
        (B, C, *S).
    """
    nodes = [math.ceil(size / float(length.min())) + 2 for size in shape]
    lattice = normal(generator, (count, channels, *nodes))
    shift = uniform(generator, (count, len(shape)))
    matrices = []
    for axis, (size, node) in enumerate(zip(shape, nodes, strict=True)):
        place = torch.arange(size, device=length.device) / length[:, None] + shift[:, axis, None]  # (B, size)
        gap = (place[..., None] - torch.arange(node, device=length.device)).abs()
        matrices.append((1 - gap).clamp(min=0))  # (B, size, node): linear interpolation
    return apply_separable(lattice, matrices)


def _ellipsoid_distance(shape: Sequence[int], centre: Tensor, radius: Tensor) -> Tensor:
    """(B, *S) distance from the centre in radii: 1 on the surface."""
    n = len(shape)
    total = torch.zeros(len(centre), *shape, device=centre.device)
    for axis, size in enumerate(shape):
        place = (torch.arange(size, device=centre.device) - centre[:, axis, None]) / radius[:, axis, None]
        total = total + place.square().view(len(centre), *(size if d == axis else 1 for d in range(n)))
    return total.sqrt()
