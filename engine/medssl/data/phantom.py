"""A synthetic CT of a torso with known organs and lesions. It is generated; no patient is behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medssl.volume import Geometry, Volume
from medssl.volume.regions import Box, box_of

ORGANS = {1: "fat", 2: "muscle", 3: "lung", 4: "liver", 5: "kidney", 6: "spine", 7: "vessel"}
"""Organ ids of the label volume; 0 is the air around the body."""

_HOUNSFIELD = (-1000.0, -100.0, 50.0, -820.0, 110.0, 190.0, 450.0, 240.0)
"""HU of air and of the organs by id: portal-venous contrast, so that liver and kidney differ."""
_LESION_HOUNSFIELD = {"liver": 35.0, "lung": 30.0}
_LESION_WIDTHS = (3, 6)
_NOISE = 12.0
_TEXTURE = 8.0
_ATTEMPTS = 500

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class CtPhantom:
    """A generated scan with everything known about it.

    Args:
        volume: (1, z, y, x) int16 HU, modality "CT".
        labels: (1, z, y, x) uint8 organ ids, lesions counted as the organ they lie in.
        lesions: (1, z, y, x) uint8, 0 or the number of a lesion from 1.
        names: organ id -> name.
        boxes: of the lesions in the order of their numbers; the label is "<organ> lesion".
    """

    volume: Volume
    labels: Volume
    lesions: Volume
    names: Mapping[int, str]
    boxes: tuple[Box, ...]


def ct_phantom(
    shape: tuple[int, int, int] = (96, 128, 128),
    spacing: tuple[float, float, float] = (1.25, 1.0, 1.0),
    seed: int = 0,
    lesions: int = 6,
) -> CtPhantom:
    """A torso of ellipsoids and cylinders: air, fat, muscle, lungs, liver, kidneys, spine, vessels.

    z grows towards the head, y towards the back, x towards the patient's left (LPS). Every seed gives
    another body: sizes and places vary by a few percent, noise and lesions are drawn anew. Lesions are
    spheres 3 to 6 voxels wide, in turn in the liver and in the lungs, and never touch.

    Args:
        shape: voxels (z, y, x).
        spacing: mm (z, y, x).
        seed: equal seeds give equal phantoms.
        lesions: how many.

    Raises:
        ValueError: the organs are too small for that many lesions.
    """
    rng = np.random.default_rng(seed)
    organs = _organs(shape, rng)
    values = np.asarray(_HOUNSFIELD, dtype=np.float32)[organs]
    instances, boxes = _lesions(organs, lesions, rng)
    for number, box in enumerate(boxes, start=1):
        values[instances == number] = _LESION_HOUNSFIELD[box.label.split()[0]]
    values = _smooth(values)
    texture = _smooth(_smooth(rng.standard_normal(shape, dtype=np.float32)))
    inside = organs > 0
    values[inside] += (_TEXTURE / texture.std()) * texture[inside]
    values += _NOISE * rng.standard_normal(shape, dtype=np.float32)
    hounsfield = np.clip(np.rint(values), -1024, 3071).astype(np.int16)
    extent = np.asarray(spacing) * (np.asarray(shape) - 1)
    geometry = Geometry.from_arrays(shape, spacing, origin=-extent / 2)
    name = "ct-phantom" if seed == 0 else f"ct-phantom-{seed}"
    notes = ("a generated CT phantom, not a patient",)
    return CtPhantom(
        volume=Volume(hounsfield[None], geometry, "CT", name, notes),
        labels=Volume(organs[None], geometry, "", f"{name}-organs", notes),
        lesions=Volume(instances[None], geometry, "", f"{name}-lesions", notes),
        names=ORGANS,
        boxes=boxes,
    )


def _organs(shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Organ ids (z, y, x); later organs cover earlier ones."""
    z, y, x = np.meshgrid(*((np.arange(n, dtype=np.float32) + 0.5) / n for n in shape), indexing="ij")

    def ellipsoid(centre: Sequence[float], radii: Sequence[float]) -> Mask:
        """Coordinates and radii as parts of the edge lengths; varied by up to 4 percent."""
        c = np.asarray(centre) + rng.uniform(-0.01, 0.01, 3)
        r = np.asarray(radii) * rng.uniform(0.96, 1.04, 3)
        return np.asarray(((z - c[0]) / r[0]) ** 2 + ((y - c[1]) / r[1]) ** 2 + ((x - c[2]) / r[2]) ** 2 <= 1)

    def tube(centre: Sequence[float], radius: float, lean: Sequence[float] = (0.0, 0.0)) -> Mask:
        """A cylinder along z, leaning by ``lean`` (y, x) per length of the body."""
        c = np.asarray(centre) + rng.uniform(-0.01, 0.01, 2)
        across = ((y - c[0] - lean[0] * (z - 0.5)) / radius) ** 2
        return np.asarray(across + ((x - c[1] - lean[1] * (z - 0.5)) / radius) ** 2 <= 1)

    organs = np.zeros(shape, dtype=np.uint8)
    girth = rng.uniform(0.97, 1.03)
    across = (np.abs(y - 0.5) / (0.40 * girth)) ** 2.5 + (np.abs(x - 0.5) / (0.46 * girth)) ** 2.5
    organs[across <= 1] = 1
    organs[across <= 0.72] = 2
    organs[ellipsoid((0.80, 0.47, 0.30), (0.26, 0.22, 0.14))] = 3
    organs[ellipsoid((0.80, 0.47, 0.70), (0.26, 0.22, 0.14))] = 3
    liver = ellipsoid((0.42, 0.43, 0.36), (0.17, 0.20, 0.21))
    organs[liver] = 4
    for side in (0.33, 0.67):
        organs[ellipsoid((0.20, 0.64, side), (0.13, 0.08, 0.07))] = 5
    column = tube((0.74, 0.5), 0.075)
    is_bone = (z * 9) % 1 < 0.78  # vertebrae with discs of soft tissue between them
    organs[column & is_bone] = 6
    organs[column & ~is_bone] = 2
    organs[tube((0.61, 0.54), 0.035)] = 7
    organs[liver & tube((0.45, 0.36), 0.022, lean=(0.25, -0.35))] = 7
    return organs


def _lesions(
    organs: NDArray[np.uint8], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[Box, ...]]:
    """Spheres within one organ each, at least one voxel away from its border and from each other."""
    instances = np.zeros(organs.shape, dtype=np.uint8)
    ids = {name: number for number, name in ORGANS.items()}
    boxes = []
    for number in range(1, count + 1):
        organ = tuple(_LESION_HOUNSFIELD)[(number - 1) % len(_LESION_HOUNSFIELD)]
        width = int(rng.integers(_LESION_WIDTHS[0], _LESION_WIDTHS[1] + 1))
        allowed = (organs == ids[organ]) & (instances == 0)
        corner = _free_place(allowed, width + 2, rng)
        while corner is None and width > _LESION_WIDTHS[0]:  # a coarse grid has room for small ones only
            width -= 1
            corner = _free_place(allowed, width + 2, rng)
        if corner is None:
            raise ValueError(f"{count} lesions do not fit into a phantom of {organs.shape} voxels")
        steps = np.arange(width) - (width - 1) / 2
        squares = np.meshgrid(steps**2, steps**2, steps**2, indexing="ij")
        ball = sum(squares) <= (width / 2) ** 2
        part = tuple(slice(start + 1, start + 1 + width) for start in corner)
        instances[part][ball] = number
        box = box_of(instances == number, f"{organ} lesion")
        if box is not None:
            boxes.append(box)
    return instances, tuple(boxes)


def _free_place(allowed: Mask, width: int, rng: np.random.Generator) -> tuple[int, ...] | None:
    """First voxel of a cube of ``width`` that lies in ``allowed`` altogether; None where none is found."""
    places = np.argwhere(allowed)
    for _ in range(_ATTEMPTS if len(places) else 0):
        corner = places[rng.integers(len(places))] - width // 2
        cube = allowed[tuple(slice(max(int(start), 0), int(start) + width) for start in corner)]
        if cube.shape == (width,) * 3 and cube.all():
            return tuple(int(start) for start in corner)
    return None


def _smooth(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur with weights 1, 2, 1 along every axis (a Gaussian of 0.7 voxels), edges repeated."""
    for axis in range(values.ndim):
        line = np.moveaxis(
            np.pad(values, [(int(a == axis),) * 2 for a in range(values.ndim)], mode="edge"), axis, 0
        )
        values = np.moveaxis(0.25 * line[:-2] + 0.5 * line[1:-1] + 0.25 * line[2:], 0, axis)
    return values
