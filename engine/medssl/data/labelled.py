"""A scan with its painted classes on the encoder's working grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medssl.data.scan import read_scan
from medssl.data.table import Row
from medssl.errors import InputError
from medssl.io import read_volume
from medssl.store.atomic import naming, save_array
from medssl.volume import Geometry, Volume
from medssl.volume.normalize import Normalizer
from medssl.volume.resample import interpolate, interpolation_matrices, resample_nearest
from medssl.volume.working_grid import working_geometry

LabelKind = Literal["dense", "scribbles"]
"""What 0 means in a mask: "dense" masks name every voxel and 0 is the background class; in "scribbles" 0 is
unlabelled and the classes are 1..C."""

UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class LabelledVolume:
    """One scan as the segmentation task sees it.

    Args:
        row: where it came from.
        grid: working grid of ``image`` and ``label``.
        image: (1, *S) float16, normalised to [0, 1].
        label: (*S) int16 mask value, -1 unlabelled.
    """

    row: Row
    grid: Geometry
    image: NDArray[np.float16]
    label: NDArray[np.int16]


def read_labelled(row: Row) -> tuple[Volume, NDArray[np.integer]]:
    """The scan of a row and its mask (*S) on the scan's own grid.

    Raises:
        InputError: no mask, a mask on another grid, or values that are not whole numbers from 0.
    """
    if row.label is None:
        raise InputError(f"{row.origin}: no label; segmentation needs the column label in every row used")
    volume, mask = read_scan(row), read_volume(row.label)
    ours, theirs = volume.geometry, mask.geometry
    if not theirs.has_spacing or not ours.has_spacing:
        fits = ours.shape == theirs.shape
    else:
        fits = theirs.ndim == ours.ndim and theirs.matches(ours, tolerance=0.1 * min(ours.spacing))
    if not fits:
        raise InputError(
            f"{row.origin}: label {row.label.name} lies on another grid ({_describe(theirs)}) than its image "
            f"({_describe(ours)}); resample it to the image"
        )
    return volume, whole_numbers(mask.array, f"{row.origin}: label {row.label.name}")


def whole_numbers(array: NDArray[Any], name: str) -> NDArray[np.integer]:
    """The one channel of a mask (1, *S) as integers (*S).

    Raises:
        InputError: several channels, fractions or negative values; ``name`` begins the message.
    """
    if len(array) != 1:
        raise InputError(f"{name} has {len(array)} channels; a mask has one, with a number per class")
    values: NDArray[Any] = array[0]
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        if not np.array_equal(rounded, values):
            raise InputError(f"{name} holds fractions; a mask holds whole numbers, one per class")
        values = rounded.astype(np.int32)
    elif values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.size and (values.min() < 0 or values.max() > 255):
        raise InputError(f"{name} holds {values.min()} to {values.max()}; classes are numbered 0 to 255")
    return values


def known_values(mask: NDArray[np.integer], kind: LabelKind) -> NDArray[np.int16]:
    """A mask (*S) with -1 where nothing is known."""
    values = mask.astype(np.int16)
    if kind == "scribbles":
        values[values == 0] = UNLABELLED
    return values


def class_values(masks: Iterable[NDArray[np.integer]]) -> tuple[int, ...]:
    """The mask values that are classes, ascending: what channel k of a network stands for."""
    return tuple(sorted({int(value) for mask in masks for value in np.unique(mask)} - {UNLABELLED}))


def to_indices(mask: NDArray[np.integer], values: Sequence[int]) -> NDArray[np.int16]:
    """Mask values (*S) -> class indices, -1 where the value is no class."""
    # one entry more than needed: the value -1 addresses the last one
    table = np.full(max(int(mask.max(initial=0)), *values) + 2, UNLABELLED, np.int16)
    table[list(values)] = np.arange(len(values))
    indices: NDArray[np.int16] = table[mask]
    return indices


def to_working_grid(
    row: Row,
    volume: Volume,
    label: NDArray[np.int16],
    spacing_range: tuple[float, float],
    scratch: Path | None = None,
) -> LabelledVolume:
    """Normalise and resample as the encoder expects.

    Labels take the nearest voxel; single painted voxels that a coarser grid would skip are kept.

    Args:
        row: where the scan came from.
        volume: the scan; several channels are averaged.
        label: (*S) mask value per voxel of the scan, -1 unlabelled.
        spacing_range: of the encoder, mm.
        scratch: folder for memory-mapped arrays, so that cohorts need not fit into memory; None keeps
            them in memory.
    """
    image, grid = working_image(volume, spacing_range, scratch)
    if grid is not volume.geometry:
        label = _resampled(label, volume.geometry, grid)
    return LabelledVolume(row, grid, image, label if scratch is None else _mapped(scratch, "label", label))


def working_image(
    volume: Volume, spacing_range: tuple[float, float], scratch: Path | None = None
) -> tuple[NDArray[np.float16], Geometry]:
    """The image (1, *S) as the encoder expects it, in [0, 1], and its grid.

    Args:
        volume: the scan; several channels are averaged.
        spacing_range: of the encoder, mm.
        scratch: folder for a memory-mapped array; None keeps it in memory.
    """
    array = volume.array if len(volume.array) == 1 else volume.array.mean(axis=0, keepdims=True)
    normalizer = Normalizer.fit(array, volume.modality)
    native, grid = volume.geometry, working_geometry(volume.geometry, spacing_range)
    if grid is not native:
        array = interpolate(array, interpolation_matrices(native, grid))
    image = normalizer(array).astype(np.float16)
    return image if scratch is None else _mapped(scratch, "image", image), grid


def _resampled(label: NDArray[np.int16], native: Geometry, grid: Geometry) -> NDArray[np.int16]:
    nearest: NDArray[np.int16] = resample_nearest(label[None], native, grid)[0]
    painted = np.argwhere(label >= 0)
    ratio = np.asarray(grid.shape) / np.asarray(native.shape)
    cell = np.minimum(((painted + 0.5) * ratio).astype(np.intp), np.asarray(grid.shape) - 1)
    lost = nearest[tuple(cell.T)] < 0
    nearest[tuple(cell[lost].T)] = label[tuple(painted[lost].T)]
    return nearest


def _mapped(folder: Path, name: str, array: NDArray[Any]) -> NDArray[Any]:
    path = folder / f"{len(list(folder.iterdir())):06d}-{name}.npy"
    with naming(path), path.open("wb") as file:
        save_array(file, array)
    return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _describe(geometry: Geometry) -> str:
    spacing = " x ".join(f"{s:.3g}" for s in geometry.spacing)
    return f"{' x '.join(map(str, geometry.shape))} voxels of {spacing} mm at {np.round(geometry.origin, 1)}"
