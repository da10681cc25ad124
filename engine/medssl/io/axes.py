"""The one place where (x, y, z) in LPS meets array order (z, y, x)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medssl.volume.geometry import Geometry

_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))


def from_lps(
    size: Sequence[int],
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: ArrayLike,
    *,
    frame_of_reference_uid: str = "",
    has_spacing: bool = True,
) -> Geometry:
    """The geometry of a grid that a file describes in (x, y, z), LPS mm.

    Args:
        size: voxels per axis, (x, y, z) or (x, y).
        spacing: mm per axis, the same order.
        origin: LPS mm of the centre of voxel 0.
        direction: n x n or its n * n entries row by row; column j is the direction of axis j.
        frame_of_reference_uid: DICOM frame of reference, empty where unknown.
        has_spacing: False where the file states no physical size.
    """
    n = len(size)
    matrix = np.asarray(direction, dtype=float).reshape(n, n)
    return Geometry.from_arrays(
        tuple(size)[::-1],
        tuple(spacing)[::-1],
        tuple(origin)[::-1],
        matrix[::-1, ::-1],
        frame_of_reference_uid=frame_of_reference_uid,
        has_spacing=has_spacing,
    )


def lps_origin(geometry: Geometry) -> tuple[float, ...]:
    """LPS mm (x, y, z) of the centre of voxel 0."""
    return tuple(reversed(geometry.origin))


def lps_spacing(geometry: Geometry) -> tuple[float, ...]:
    """Mm per axis in the order (x, y, z)."""
    return tuple(reversed(geometry.spacing))


def lps_direction(geometry: Geometry) -> NDArray[np.float64]:
    """(n, n) direction as ITK has it: column j is the LPS direction of file axis j, x first."""
    return np.asarray(geometry.direction, dtype=float)[::-1, ::-1].copy()


def lps_point(geometry: Geometry, index: ArrayLike) -> list[float]:
    """LPS mm [x, y, z] of a voxel index in array order, as files and JSON state it."""
    return [float(value) for value in geometry.to_world(index)[::-1]]


def lps_index(geometry: Geometry, point: ArrayLike) -> list[float]:
    """Continuous voxel index in array order of an LPS point [x, y, z] in mm."""
    return [float(value) for value in geometry.to_index(np.asarray(point, dtype=float)[::-1])]


def orientation_code(geometry: Geometry) -> str:
    """Towards which side of the patient the file axes x, y, z grow, for example "LPS" or "RAS".

    The closest anatomical direction names an oblique axis, each direction being used once, as
    nibabel does. Empty for a picture without a place in the patient (2D, or no spacing).
    """
    if geometry.ndim != len(_LETTERS) or not geometry.has_spacing:
        return ""
    direction = lps_direction(geometry)
    strength = np.abs(direction)
    code = [""] * geometry.ndim
    for _ in range(geometry.ndim):
        world, axis = np.unravel_index(int(strength.argmax()), strength.shape)
        code[axis] = _LETTERS[world][int(direction[world, axis] < 0)]
        strength[world, :] = -1
        strength[:, axis] = -1
    return "".join(code)
