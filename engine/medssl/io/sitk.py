"""NIfTI, NRRD, MHA and pictures through SimpleITK."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.io.apart import apart
from medssl.io.atomic import replacing
from medssl.io.axes import from_lps, lps_direction, lps_origin, lps_spacing
from medssl.io.formats import PICTURES, VOLUMES, WRITABLE_PICTURES, image_suffix
from medssl.io.jpeg import is_truncated_jpeg
from medssl.io.nifti import check_nifti, holes_of
from medssl.io.quiet import quiet_libraries
from medssl.io.text_header import lost_origin, states_spacing
from medssl.io.values import compact, finite, grey, guess_modality
from medssl.volume import Geometry, Volume

# mypy: disable-error-code="no-untyped-call"
# SimpleITK ships no annotations.

_SPATIAL_AXES = 3
_SHEARED = "the voxel axes are not at right angles (sheared): resample the scan first"
_TEXT_HEADERS = (".nrrd", ".nhdr", ".mha", ".mhd")


def read_image(path: Path, frame: int = 0) -> Volume:
    """Read one image file.

    Args:
        path: a file with one of `formats.SUFFIXES`.
        frame: which volume of a 4D file, from 0.

    Raises:
        InputError: not an image, truncated, without a usable geometry, or without that frame.
    """
    suffix = image_suffix(path)
    notes: list[str] = []
    holes = None
    if VOLUMES.get(suffix) == "NiftiImageIO":
        header = check_nifti(path)
        holes = holes_of(path, header)
        notes += header.notes
        with apart(path, suffix) as place:
            image, frames = _load(place, suffix, frame, path)
    else:
        if suffix in (".jpg", ".jpeg") and is_truncated_jpeg(path):
            raise InputError(f"{path}: truncated: the file ends before its last pixel; copy it again")
        image, frames = _load(path, suffix, frame, path)
    if frames > 1:
        notes.append(f"the file holds {frames} volumes: this is frame {frame}, counted from 0")
    if 0 in image.GetSize():
        raise InputError(f"{path}: holds no voxel, one of its sizes is 0: correct the header")
    is_picture = suffix in PICTURES
    try:
        array, changes = _values(image, holes, frame, is_picture)
        geometry = _geometry(image, is_picture)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    if suffix in _TEXT_HEADERS:
        if not states_spacing(path, suffix, geometry.ndim):
            geometry = replace(geometry, has_spacing=False)
            notes.append("no spacing stated: taken as 1 mm")
        if lost := lost_origin(path, suffix):
            notes.append(f"the position in the patient is not a number ({lost}): taken as 0")
    modality, modality_note = _modality(image, array, path, is_picture)
    if is_picture:
        notes.append("pictures state no voxel size: distances are in pixels, not mm")
    notes += [text for text in (*changes, modality_note) if text]
    return Volume(array, geometry, modality, _identifier(path, suffix, array), tuple(notes))


def read_dicom_pictures(paths: Sequence[Path]) -> NDArray[Any] | None:
    """(n, rows, columns) of DICOM files with one grey picture each, rescaled, in the given order.

    None where one cannot be decoded. The first file decides about the type of all.
    """
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(path) for path in paths])
    with quiet_libraries():
        try:
            array: NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError:
            return None
    return array


def write_image(volume: Volume, path: Path) -> None:
    """Write a volume in its own geometry; the file appears when it is complete.

    Args:
        volume: image, mask or map; several channels become a vector image.
        path: .nii, .nii.gz, .nrrd, .nhdr, .mha or .mhd; .png or .tif for an 8- or 16-bit image.

    Raises:
        InputError: the format cannot hold this volume, or the file cannot be written.
    """
    suffix = image_suffix(path)
    if suffix not in (*VOLUMES, *WRITABLE_PICTURES):
        endings = " ".join((*VOLUMES, *WRITABLE_PICTURES))
        raise InputError(f"{path}: this format cannot be written: end the name with one of {endings}")
    array = _storable(volume.array)
    if suffix in WRITABLE_PICTURES:
        array = _as_picture(array, volume.geometry, path)
    if array.shape[0] == 1:
        image = sitk.GetImageFromArray(array[0])
    else:
        image = sitk.GetImageFromArray(np.moveaxis(array, 0, -1), isVector=True)
    image.SetSpacing(lps_spacing(volume.geometry))
    image.SetOrigin(lps_origin(volume.geometry))
    image.SetDirection(lps_direction(volume.geometry).ravel().tolist())
    with replacing(path) as temporary, quiet_libraries():
        temporary.touch()  # the system's reason why there can be no such file, which ITK does not tell
        try:
            sitk.WriteImage(image, str(temporary), useCompression=suffix not in (".nii", ".nhdr", ".mhd"))
        except RuntimeError as error:
            raise InputError(f"{path}: cannot be written (disk full, or no permission)") from error
        if not _holds(temporary, image):
            raise InputError(f"{path}: cannot be written whole (disk full?); free some space and write again")


def _holds(place: Path, image: sitk.Image) -> bool:
    """Whether a file just written gives back its voxels: ITK says nothing when the disk is full."""
    try:
        written: NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(place)))
    except RuntimeError:
        return False
    wanted = sitk.GetArrayViewFromImage(image)
    if written.size != wanted.size:
        return False
    same = written.ravel() == wanted.ravel()
    return bool((same | ~np.isfinite(wanted.ravel())).all())  # ITK reads NaN in NIfTI as 0


def _load(place: Path, suffix: str, frame: int, path: Path) -> tuple[sitk.Image, int]:
    """The image, cut down to one frame, and the number of frames; errors name ``path``."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO((VOLUMES | PICTURES)[suffix])
    reader.SetFileName(str(place))
    with quiet_libraries():
        try:
            reader.ReadImageInformation()
            size = reader.GetSize()
            frames = int(np.prod(size[_SPATIAL_AXES:], dtype=np.int64))
            if not 0 <= frame < frames:
                raise InputError(f"{path}: has no frame {frame}: choose 0 to {frames - 1}")
            if len(size) > _SPATIAL_AXES:
                beyond = np.unravel_index(frame, size[_SPATIAL_AXES:], order="F")
                reader.SetExtractSize([*size[:_SPATIAL_AXES], *[0] * len(beyond)])
                reader.SetExtractIndex([0] * _SPATIAL_AXES + [int(index) for index in beyond])
            return reader.Execute(), frames
        except RuntimeError as error:
            raise _explain(path, str(error)) from error


def _explain(path: Path, message: str) -> InputError | MemoryError:
    """What an ITK exception means for the user."""
    text = message.lower()
    if "memory" in text and "alloc" in text:
        return MemoryError(f"{path} does not fit into memory")
    if "zero-valued spacing" in text or "negative spacing" in text:
        return InputError(f"{path}: the voxel spacing is not positive: correct the header")
    if "orthonormal" in text or "direction" in text:
        return InputError(f"{path}: {_SHEARED}")
    suffix = image_suffix(path)
    lost = ", or its data file is missing" if suffix in (".mhd", ".nhdr") else ""
    return InputError(f"{path}: not a readable {suffix} image, or truncated{lost}: export or copy it again")


def _channels_first(image: sitk.Image) -> NDArray[Any]:
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        return array[None]
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


def _values(
    image: sitk.Image, holes: NDArray[np.bool_] | None, frame: int, is_picture: bool
) -> tuple[NDArray[Any], list[str]]:
    """(C, *S) finite voxels in the smallest type, and notes on what was done to them (or empty ones)."""
    array = _channels_first(image)
    if holes is not None:
        array[holes if len(holes) == len(array) else holes[frame : frame + 1]] = np.nan
    array, note = finite(array)
    notes = [note]
    if is_picture and array.shape[0] > 1:
        array, note = _as_grey(array)
        notes.append(note)
    elif array.shape[0] > 1:
        notes.append(f"{array.shape[0]} values per voxel: where one is needed it is their mean")
    return compact(array), notes


def _as_grey(array: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """One channel of a picture (C, *S) with C = 2 (grey, alpha), 3 or 4 (colour, alpha)."""
    if array.shape[0] == 2 or all(np.array_equal(array[0], channel) for channel in array[1:3]):
        return array[:1], "the picture was stored with several equal channels: one is kept"
    values = np.rint(grey(np.moveaxis(array, 0, -1)))
    return values.astype(array.dtype)[None], "the picture is coloured: its brightness is used"


def _geometry(image: sitk.Image, is_picture: bool) -> Geometry:
    size = image.GetSize()
    if is_picture:
        n = len(size)
        return from_lps(size, [1.0] * n, [0.0] * n, np.eye(n), has_spacing=False)
    try:
        return from_lps(size, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    except ValueError as error:
        raise ValueError(_SHEARED) if "orthonormal" in str(error) else error from None


def _modality(image: sitk.Image, array: NDArray[Any], path: Path, is_picture: bool) -> tuple[str, str]:
    for key in ("modality", "Modality"):
        if image.HasMetaDataKey(key) and image.GetMetaData(key).strip() in ("CT", "MR", "PT"):
            return image.GetMetaData(key).strip(), ""
    if is_picture:
        return "", "modality unknown: the file does not state it"
    return guess_modality(array, path.name)


def _identifier(path: Path, suffix: str, array: NDArray[Any]) -> str:
    """Name of the file and a checksum of the voxels: equal names in a cohort stay apart."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", path.name[: -len(suffix)])[:40]
    return f"{stem}-{zlib.crc32(np.ascontiguousarray(array).data):08x}"


def _storable(array: NDArray[Any]) -> NDArray[Any]:
    """The same values in a type that every format knows."""
    if array.dtype.kind == "b" or array.dtype.itemsize == 8 or array.dtype == np.float16:
        return compact(array.astype(np.float32) if array.dtype == np.float16 else array)
    return array


def _as_picture(array: NDArray[Any], geometry: Geometry, path: Path) -> NDArray[Any]:
    if geometry.ndim != 2 or array.shape[0] != 1:
        raise InputError(f"{path}: a picture holds one 2D channel: write a volume as .nii.gz, .nrrd or .mha")
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "f" or low < 0 or high > np.iinfo(np.uint16).max:
        raise InputError(
            f"{path}: a picture holds whole numbers from 0 to 65535, these go from {low:g} to {high:g}: "
            "write .nii.gz, .nrrd or .mha"
        )
    return array.astype(np.uint8 if array.dtype.itemsize == 1 else np.uint16, copy=False)
