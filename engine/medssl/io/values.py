"""Voxel values as they come from a file: smallest lossless type, repairs, a guess at the modality."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError

_INTEGERS = (np.int16, np.uint16, np.int32)
_SAMPLES = 200_000
_NAMED = {"pet": "PT", "pt": "PT", "suv": "PT"} | dict.fromkeys(
    ("mr", "mri", "t1", "t2", "t1w", "t2w", "t1ce", "t1c", "t1gd", "t2s", "flair", "dwi", "adc", "dixon"),
    "MR",
)
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Luma of ITU-R BT.601, what pillow and DICOM use."""


def compact(array: NDArray[Any]) -> NDArray[Any]:
    """The same values in the smallest of uint8, int16, uint16, int32 and float32 that keeps them.

    8-bit data stays 8-bit, and whole numbers stored as floats become integers. Only 64-bit floats
    lose digits, down to the 24 bits of float32.

    Args:
        array: voxel values, finite, any shape.

    Raises:
        InputError: complex numbers.
    """
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "c":
        raise InputError("complex numbers are not an image: store the magnitude instead")
    if kind == "b" or array.dtype == np.uint8:
        return array.astype(np.uint8, copy=False)
    if kind in "iu" and size == 2 and kind == "i":
        return array
    if kind == "f" and not _is_whole(array):
        return array.astype(np.float32, copy=False)
    low, high = float(array.min()), float(array.max())
    for candidate in _INTEGERS:
        info = np.iinfo(candidate)
        if info.min <= low and high <= info.max:
            return array.astype(candidate, copy=False)
    return array.astype(np.float32, copy=False)


def _is_whole(array: NDArray[Any]) -> bool:
    sample = array.reshape(-1)[:: max(1, array.size // 4096)]
    return bool(np.array_equal(sample, np.rint(sample)) and np.array_equal(array, np.rint(array)))


def finite(array: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Replace NaN, infinite voxels and those beyond float32 by the lowest other value, the background.

    Returns:
        The array, and a note that says what was done, empty when nothing was.

    Raises:
        InputError: no voxel is finite.
    """
    if array.dtype.kind != "f":
        return array, ""
    bad = ~(np.abs(array) <= np.finfo(np.float32).max)
    count = int(bad.sum())
    if count == 0:
        return array, ""
    if count == array.size:
        raise InputError("no voxel holds a number (all are NaN or infinite)")
    low = array[~bad].min()
    what = "NaN, infinite or too large" if np.isfinite(array[bad]).any() else "NaN or infinite"
    return np.where(bad, low, array), f"{count} {what} voxels were set to the lowest value, {low:g}"


def grey(array: NDArray[Any]) -> NDArray[np.float32]:
    """Luminance of colour voxels (..., 3), float32 (...)."""
    return array[..., :3].astype(np.float32) @ _GREY


def guess_modality(array: NDArray[Any], name: str) -> tuple[str, str]:
    """CT, MR or PT from the values and the file name, where the file does not state it.

    Hounsfield units give a CT away, because air lies near -1000. Few distinct whole numbers are a
    label map and have no modality. The rest is called MR unless its name says PET.

    Args:
        array: (C, *S) voxel values.
        name: file or series name.

    Returns:
        The modality, and a note that it was inferred; both empty where nothing can be said.
    """
    flat = array.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLES)]
    low, high = (float(value) for value in np.percentile(sample, (0.1, 99.9)))
    named = next((_NAMED[word] for word in re.split(r"[^a-z0-9]+", name.lower()) if word in _NAMED), "")
    whole = array.dtype.kind in "iu"
    if not named and low <= (-200 if whole else -500) and high > 0:
        return (
            "CT",
            f"modality not stated: taken as CT, values look like Hounsfield units ({low:.0f} to {high:.0f})",
        )
    if whole and low >= 0 and np.unique(sample).size <= 32:
        return "", ""
    if named:
        return named, f"modality not stated: taken as {named} from the name"
    return "MR", "modality not stated: taken as MR, values do not look like Hounsfield units"
