"""Refusals that should come before the work: where a mask or map cannot go."""

from __future__ import annotations

from pathlib import Path

from medssl.errors import InputError
from medssl.io.formats import VOLUMES, WRITABLE_PICTURES, image_suffix


def check_output(out: Path, *inputs: Path) -> None:
    """Refuse an image file that would replace what it is made from, or whose ending cannot be written.

    Args:
        out: file to write.
        inputs: scans and masks that are read: files, or folders of DICOM series.

    Raises:
        InputError: naming the file and the way out.
    """
    place = out.resolve()
    for given in inputs:
        source = given.resolve()
        if place == source or (given.is_dir() and place.parent == source):
            raise InputError(f"--out {out}: would write over the input {given}; choose another name")
    if image_suffix(out) not in (*VOLUMES, *WRITABLE_PICTURES):
        known = ", ".join((*VOLUMES, *WRITABLE_PICTURES))
        raise InputError(f"--out {out}: cannot be written; end the name with one of {known}")
