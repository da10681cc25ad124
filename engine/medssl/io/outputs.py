"""Refusals that should come before the work: where a mask or map cannot go."""

from __future__ import annotations

from pathlib import Path

from medssl.errors import InputError
from medssl.io.formats import VOLUMES, WRITABLE_PICTURES, image_suffix
from medssl.volume import Volume


def check_output(out: Path, *inputs: Path, option: str = "--out") -> None:
    """Refuse an image file that would replace what it is made from, or whose ending cannot be written.

    Args:
        out: file to write.
        inputs: scans and masks that are read: files, or folders of DICOM series.
        option: what the file was given with.

    Raises:
        InputError: naming the file and the way out.
    """
    check_place(out, *inputs, option=option)
    if image_suffix(out) not in (*VOLUMES, *WRITABLE_PICTURES):
        known = ", ".join((*VOLUMES, *WRITABLE_PICTURES))
        raise InputError(f"{option} {out}: cannot be written; end the name with one of {known}")


def check_place(out: Path, *inputs: Path, option: str = "--out") -> None:
    """Refuse a file that would replace what it is made from, or lie among the files of a folder that is read.

    Args:
        out: file to write.
        inputs: files or folders that are read.
        option: what the file was given with.

    Raises:
        InputError: naming the file and the way out.
    """
    place = out.resolve()
    for given in inputs:
        source = given.resolve()
        if place == source or (given.is_dir() and place.parent == source):
            raise InputError(f"{option} {out}: would write over the input {given}; choose another name")


def check_dimensions(out: Path, volume: Volume, option: str = "--out") -> None:
    """Refuse a picture file for a volume.

    Raises:
        InputError: naming the file and the way out.
    """
    if volume.spatial_dims == 3 and image_suffix(out) in WRITABLE_PICTURES:
        known = ", ".join(VOLUMES)
        raise InputError(f"{option} {out}: a picture holds no volume; end the name with one of {known}")
