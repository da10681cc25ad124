"""Slices that are not on a regular, right-angled grid are brought onto one, linearly and with a note."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EVEN = 0.02
"""A slice may miss its place on an even grid by this part of the spacing before slices are resampled."""
_EVEN_MM = 0.01
_SHEAR_PIXELS = 0.5
_MOST_ADDED = 3


@dataclass(frozen=True)
class SliceGrid:
    """Evenly spaced places for unevenly spaced slices.

    Args:
        offsets: (m,) mm along the normal, evenly spaced.
        spacing: mm between them.
        note: what differs from the given slices; empty where nothing does.
    """

    offsets: NDArray[np.float64]
    spacing: float
    note: str


def even_grid(offsets: NDArray[np.float64]) -> SliceGrid:
    """An even grid from the first to the last slice.

    Its spacing is the lower median distance, adjusted so that both ends are kept: with slices
    missing, the others stay where they are and the gaps are filled.

    Args:
        offsets: (n,) mm along the normal, increasing, n >= 2.

    Raises:
        ValueError: so uneven that most of the volume would be invented.
    """
    count = len(offsets)
    extent = float(offsets[-1] - offsets[0])
    mean = extent / (count - 1)
    regular = offsets[0] + mean * np.arange(count)
    if np.abs(offsets - regular).max() <= max(_EVEN_MM, _EVEN * mean):
        return SliceGrid(regular, mean, "")
    distances = np.diff(offsets)
    typical = float(np.sort(distances)[(count - 2) // 2])
    steps = round(extent / typical)
    spread = f"{distances.min():.4g} to {distances.max():.4g} mm"
    if steps + 1 > _MOST_ADDED * count:
        raise ValueError(
            f"slices lie {spread} apart, too unevenly for one volume: give a series with even slices"
        )
    spacing = extent / steps
    multiples = distances / spacing
    if np.abs(multiples - np.rint(multiples)).max() <= _EVEN:
        added = steps + 1 - count
        missing = "1 slice is missing" if added == 1 else f"{added} slices are missing"
        note = f"{missing} (distances {spread}): filled by linear interpolation"
    else:
        note = f"slices lie {spread} apart: resampled linearly to {spacing:.4g} mm"
    return SliceGrid(offsets[0] + spacing * np.arange(steps + 1), spacing, note)


def resample_slices(
    array: NDArray[Any], offsets: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[Any]:
    """Interpolate linearly between slices (n, rows, columns) -> (m, rows, columns), same type.

    Args:
        array: slices at ``offsets``.
        offsets: (n,) mm, increasing.
        wanted: (m,) mm within the range of ``offsets``.
    """
    result = np.empty((len(wanted), *array.shape[1:]), dtype=array.dtype)
    below = np.clip(np.searchsorted(offsets, wanted, side="right") - 1, 0, len(offsets) - 2)
    for index, (place, k) in enumerate(zip(wanted, below, strict=True)):
        weight = float(np.clip((place - offsets[k]) / (offsets[k + 1] - offsets[k]), 0, 1))
        result[index] = _cast(array[k] * (1 - weight) + array[k + 1] * weight, array.dtype)
    return result


def is_sheared(shifts: NDArray[np.float64]) -> bool:
    """Whether slices drift sideways by more than half a pixel over the stack (gantry tilt).

    Args:
        shifts: (n, 2) pixels per slice.
    """
    return bool(np.ptp(shifts, axis=0).max() > _SHEAR_PIXELS)


def unshear(array: NDArray[Any], shifts: NDArray[np.float64]) -> tuple[NDArray[Any], tuple[int, int]]:
    """Put slices that drift sideways onto one right-angled grid that holds them all.

    Args:
        array: (n, rows, columns).
        shifts: (n, 2) pixels by which each slice begins further along (rows, columns).

    Returns:
        The wider array, padded with its lowest value, and the pixels (rows, columns) by which its
        first pixel lies away from the first pixel of an unshifted slice.
    """
    start = np.floor(shifts.min(axis=0)).astype(int)
    wider = np.ceil(shifts.max(axis=0)).astype(int) - start + 1
    lowest = array.min()
    result = np.empty((array.shape[0], array.shape[1] + wider[0], array.shape[2] + wider[1]), array.dtype)
    for index, shift in enumerate(shifts - start):
        above = array[index].astype(np.float32) - np.float32(lowest)
        for axis in (0, 1):
            above = _shifted(above, float(shift[axis]), axis, result.shape[1 + axis])
        result[index] = _cast(above + np.float32(lowest), array.dtype)
    return result, (int(start[0]), int(start[1]))


def _shifted(picture: NDArray[np.float32], shift: float, axis: int, size: int) -> NDArray[np.float32]:
    """Move a picture along an axis by ``shift`` >= 0 pixels into ``size`` pixels of zeros."""
    whole = int(np.floor(shift))
    part = np.float32(shift - whole)
    lines = np.moveaxis(picture, axis, 0)
    moved = np.zeros((size, lines.shape[1]), dtype=np.float32)
    moved[whole : whole + len(lines)] = (1 - part) * lines
    if part > 0:
        moved[whole + 1 : whole + 1 + len(lines)] += part * lines
    return np.moveaxis(moved, 0, axis)


def _cast(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.rint(values).astype(dtype) if dtype.kind in "iu" else values.astype(dtype, copy=False)
