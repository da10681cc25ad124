"""Refusals that should come before the work: where a mask or map cannot go."""

from __future__ import annotations

import os
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
    """Refuse a file that cannot be written, would replace what it is made from, or lie among what is read.

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
    if place.is_dir():
        raise InputError(f"{option} {out}: is a folder; give the name of a file")
    above = next((folder for folder in place.parents if folder.exists()), None)
    if above is None:
        raise InputError(f"{option} {out}: {place.anchor} is not there; choose another folder")
    if not above.is_dir():
        raise InputError(f"{option} {out}: {above} is a file, not a folder; choose another name")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{option} {out}: {above} may not be written to; choose another folder")


def check_dimensions(out: Path, volume: Volume, option: str = "--out") -> None:
    """Refuse a picture file for a volume.

    Raises:
        InputError: naming the file and the way out.
    """
    if volume.spatial_dims == 3 and image_suffix(out) in WRITABLE_PICTURES:
        known = ", ".join(VOLUMES)
        raise InputError(f"{option} {out}: a picture holds no volume; end the name with one of {known}")
