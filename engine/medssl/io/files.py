"""The two doors of the room: a path becomes a volume, a volume becomes a file.

SimpleITK and pydicom cost a quarter and half a second to import. Each is loaded by the first file that
needs it, so that `medssl info` answers within a second.
"""

from __future__ import annotations

import os
from pathlib import Path

from medssl.errors import InputError
from medssl.io.formats import SUFFIXES, image_suffix, looks_like_dicom
from medssl.io.series import SeriesInfo
from medssl.volume import Volume

# ruff: noqa: PLC0415 (see the module docstring)


def read_volume(path: str | os.PathLike[str], series: str | None = None, frame: int = 0) -> Volume:
    """Read an image: NIfTI, NRRD, MHA, PNG, JPEG, TIFF, a DICOM folder, or one file of a DICOM series.

    Args:
        path: file or folder.
        series: which DICOM series, as `list_series` names it; None takes the largest.
        frame: which volume of a 4D image, from 0.

    Returns:
        The volume in array order, CT in Hounsfield units. Its ``notes`` say in words what was chosen,
        inferred or repaired.

    Raises:
        InputError: nothing there that is an image; the message says why and what to do.
    """
    place = _existing(path)
    if place.is_dir() or not image_suffix(place):
        _refuse_foreign(place)
        from medssl.io.dicom import read_dicom

        return read_dicom(place, series, frame)
    if series is not None:
        raise InputError(f"{place}: only DICOM has series: leave the series out")
    from medssl.io.sitk import read_image

    return read_image(place, frame)


def list_series(path: str | os.PathLike[str]) -> list[SeriesInfo]:
    """The DICOM series of a folder (or of one file), images first and largest first, then the rest.

    A file of another format has none: the list is empty.

    Args:
        path: file or folder.

    Raises:
        InputError: there is no such path.
    """
    place = _existing(path)
    if place.is_file() and image_suffix(place):
        return []
    _refuse_foreign(place)
    from medssl.io.dicom import list_dicom

    return list_dicom(place)


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write an image or a mask in exactly its own geometry.

    The file appears under its name when it is complete; an older file stays until then.

    Args:
        volume: (C, *S) voxels; several channels become a vector image.
        path: ends with .nii, .nii.gz, .nrrd, .nhdr, .mha or .mhd; 8- and 16-bit images also .png, .tif.

    Raises:
        InputError: the format cannot hold the volume, or the file cannot be written.
    """
    from medssl.io.sitk import write_image

    write_image(volume, Path(path))


def _existing(path: str | os.PathLike[str]) -> Path:
    place = Path(path).expanduser()
    if not place.exists():
        raise InputError(f"{place}: no such file or folder: check the path")
    return place


def _refuse_foreign(place: Path) -> None:
    """Stop at a file that is neither one of our formats nor DICOM, before pydicom is loaded."""
    if place.is_dir():
        return
    try:
        with place.open("rb") as handle:
            start = handle.read(132)
    except OSError as error:
        raise InputError(f"{place}: cannot be read: {error.strerror}") from error
    if not looks_like_dicom(start):
        raise InputError(
            f"{place}: not an image that can be read: give DICOM or a file ending with {' '.join(SUFFIXES)}"
        )
