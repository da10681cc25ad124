"""DICOM folders and files: which series they hold, and one of them as a volume."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.io.axes import from_lps
from medssl.io.dicom_pixels import read_pixels
from medssl.io.dicom_scan import NO_UID, Scan, Series, files_below, scan
from medssl.io.dicom_stack import Stack, stacks
from medssl.io.regrid import even_grid, is_sheared, resample_slices, unshear
from medssl.io.series import SeriesInfo
from medssl.io.values import guess_modality
from medssl.volume import Geometry, Volume

_MODALITIES = ("CT", "MR", "PT")
_UNITS = {"GML": "g/ml (SUV by body weight)", "BQML": "Bq/ml", "CNTS": "counts"}


@dataclass(frozen=True)
class _Choice:
    series: Series
    stack: Stack


def list_dicom(path: Path) -> list[SeriesInfo]:
    """The series of a folder (sub-folders included) or of the folder of one file, largest first.

    Args:
        path: a folder, or a DICOM file.
    """
    found = scan(files_below(path)) if path.is_dir() else _around(path, [])
    images = [_image_info(choice) for choice in _choices(found)]
    refused = [
        SeriesInfo(one.uid, one.modality, one.description, one.files, reason=f"{one.refusal}, not an image")
        for one in found.series
        if one.refusal
    ]
    return images + refused


def read_dicom(path: Path, series: str | None = None, frame: int = 0) -> Volume:
    """Read one series, sorted along its normal and rescaled (CT in Hounsfield units).

    Args:
        path: a folder, or one file: then the series that the file belongs to.
        series: uid as `list_dicom` gives it; None takes the largest and says so.
        frame: which volume where a series holds several, from 0.

    Raises:
        InputError: no image, no such series or frame, or slices that do not make a volume.
    """
    notes: list[str] = []
    found = scan(files_below(path)) if path.is_dir() else _around(path, notes)
    choices = _choices(found)
    choice = _chosen(path, found, choices, series)
    if found.unreadable:
        notes.append(f"damaged DICOM files left out: {found.unreadable}")
    if series is None and len(choices) > 1:
        notes.append(
            f"{len(choices)} series here: this is {choice.stack.uid}, the largest; choose another by its uid"
        )
    try:
        return _volume(choice, frame, notes)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _around(path: Path, notes: list[str]) -> Scan:
    """The series that one file belongs to: files beside it, unless it holds all slices itself."""
    alone = scan([path])
    if not alone.series:
        raise InputError(f"{path}: not a DICOM file, or truncated or damaged: copy it again")
    own = alone.series[0]
    if own.refusal or len(own.frames) > 1 or not own.uid:
        return alone
    siblings = []
    for candidate in sorted(path.parent.iterdir()):
        if candidate.is_file() and not candidate.name.startswith("."):
            siblings.append(candidate)
    together = scan(siblings)
    same = tuple(one for one in together.series if one.uid == own.uid)
    if same and same[0].files > 1:
        notes.append(f"the file is one of {same[0].files} of its series: the whole series was read")
    return Scan(same, together.unreadable, together.others)


def _choices(found: Scan) -> list[_Choice]:
    choices = [_Choice(one, stack) for one in found.series if not one.refusal for stack in stacks(one)]
    return sorted(choices, key=lambda choice: -choice.stack.voxels)


def _chosen(path: Path, found: Scan, choices: Sequence[_Choice], series: str | None) -> _Choice:
    if series is not None:
        for choice in choices:
            if choice.stack.uid == series:
                return choice
        for one in found.series:
            if one.uid == series and one.refusal:
                raise InputError(
                    f"{path}: this series holds {one.refusal}, not an image: choose an image series"
                )
        known = ", ".join(choice.stack.uid for choice in choices[:8]) or "none"
        raise InputError(f"{path}: has no image series {series}: choose one of {known}")
    if choices:
        return choices[0]
    refusals = sorted({one.refusal for one in found.series})
    if refusals:
        raise InputError(
            f"{path}: holds {' and '.join(refusals)}, not an image: give the image series it belongs to"
        )
    if found.unreadable:
        raise InputError(
            f"{path}: none of {found.unreadable} DICOM files can be read, they are truncated or damaged: "
            "copy the series again"
        )
    if found.others:
        raise InputError(
            f"{path}: none of its {found.others} files is DICOM: name an image file or a DICOM folder"
        )
    raise InputError(f"{path}: the folder is empty: name a folder with a DICOM series")


def _volume(choice: _Choice, frame: int, notes: list[str]) -> Volume:
    series, stack = choice.series, choice.stack
    if not 0 <= frame < stack.frames:
        raise ValueError(f"has no frame {frame}: choose 0 to {stack.frames - 1}")
    if stack.frames > 1:
        notes.append(
            f"{stack.frames} volumes (times, echoes or b-values): this is frame {frame}, counted from 0"
        )
    notes += stack.notes
    pixel_spacing = _pixel_spacing(stack, notes)
    _check_orientation(stack)
    array, pixel_notes = read_pixels([pictures[frame] for pictures in stack.slices])
    notes += pixel_notes
    if stack.is_placed:
        array, geometry = _placed(array, stack, pixel_spacing, series.frame_of_reference_uid, notes)
    else:
        notes.append("the files state no position: read as a picture without a place in the patient")
        geometry = Geometry.from_arrays(
            array.shape[1:], pixel_spacing, has_spacing=stack.first.pixel_spacing is not None
        )
        array = array[0]
    modality, note = series.modality, ""
    if modality not in _MODALITIES:
        guessed, note = guess_modality(array, series.description)
        modality, note = (guessed, note) if stack.is_placed else (modality, "")
    if any(pictures[frame].slope == 0 for pictures in stack.slices):
        raise ValueError("a rescale slope is 0, so that all values are lost: export the series again")
    if modality == "CT" and not all(pictures[frame].states_rescale for pictures in stack.slices):
        notes.append("CT without a rescale slope: stored values are taken as Hounsfield units")
    if modality == "PT" and series.units:
        notes.append(f"PET values are in {_UNITS.get(series.units, series.units)}")
    if note:
        notes.append(note)
    name = _identifier(stack, modality, frame, array)
    return Volume(array[None], geometry, modality, name, tuple(notes))


def _placed(
    array: NDArray[Any],
    stack: Stack,
    pixel_spacing: tuple[float, float],
    frame_of_reference: str,
    notes: list[str],
) -> tuple[NDArray[Any], Geometry]:
    """Pixels on an even, right-angled grid, and where it lies."""
    offsets = np.asarray(stack.offsets)
    axes = stack.axes
    origin = np.asarray(stack.first.position or (0.0, 0.0, 0.0), dtype=float)
    shifts = stack.drift[:, ::-1] / pixel_spacing  # (row, column) directions in mm -> (rows, columns) pixels
    if is_sheared(shifts):
        drift = float(np.abs(stack.drift).max())
        notes.append(
            f"slices drift sideways by {drift:.4g} mm (gantry tilt): resampled onto a right-angled grid"
        )
        array, (down, right) = unshear(array, shifts)
        origin = origin + axes[1] * down * pixel_spacing[0] + axes[0] * right * pixel_spacing[1]
    if len(offsets) > 1:
        grid = even_grid(offsets)
        spacing = grid.spacing
        if grid.note:
            notes.append(grid.note)
            array = resample_slices(array, offsets, grid.offsets)
    else:
        spacing = stack.first.thickness or 1.0
        if stack.first.thickness is None:
            notes.append("one slice of unknown thickness: taken as 1 mm")
    geometry = from_lps(
        array.shape[::-1],
        (pixel_spacing[1], pixel_spacing[0], spacing),
        tuple(origin),
        axes.T,
        frame_of_reference_uid=frame_of_reference,
        has_spacing=stack.first.pixel_spacing is not None,
    )
    return array, geometry


def _pixel_spacing(stack: Stack, notes: list[str]) -> tuple[float, float]:
    """Mm between rows and between columns."""
    spacing = stack.first.pixel_spacing
    if spacing is None:
        notes.append("the files state no pixel spacing: taken as 1 mm")
        return (1.0, 1.0)
    if min(spacing) <= 0:
        raise ValueError("the pixel spacing is not positive, so sizes in mm are unknown: correct the files")
    return spacing


def _check_orientation(stack: Stack) -> None:
    row, column = np.asarray(stack.orientation[:3]), np.asarray(stack.orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.9 or abs(float(row @ column)) > 0.01 * lengths[0] * lengths[1]:
        raise ValueError("rows and columns are not at right angles: the stated orientation cannot be used")


def _image_info(choice: _Choice) -> SeriesInfo:
    series, stack = choice.series, choice.stack
    first, count = stack.first, len(stack.slices)
    spacing: tuple[float, ...] = first.pixel_spacing or ()
    shape: tuple[int, ...] = (first.rows, first.columns)
    if stack.is_placed:
        shape = (count, *shape)
        distance = (stack.offsets[-1] - stack.offsets[0]) / (count - 1) if count > 1 else first.thickness
        spacing = (distance, *spacing) if spacing and distance else ()
    paths = {frame.path for pictures in stack.slices for frame in pictures}
    return SeriesInfo(
        stack.uid, series.modality, series.description, len(paths), shape, spacing, stack.frames
    )


def _identifier(stack: Stack, modality: str, frame: int, array: NDArray[Any]) -> str:
    """A short, stable name from the series uid, or the voxels where there is none; not from the patient."""
    source = np.ascontiguousarray(array).tobytes() if stack.uid.startswith(NO_UID) else stack.uid.encode()
    name = f"{(modality or 'image').lower()}-{zlib.crc32(source):08x}"
    return f"{name}-frame{frame}" if stack.frames > 1 else name
