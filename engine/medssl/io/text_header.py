"""What the text header of an NRRD or MetaImage file does not state; ITK takes 1 mm or 0 without a word."""

from __future__ import annotations

import math
from pathlib import Path

_MOST_BYTES = 1 << 16
_META_IMAGE = (".mha", ".mhd")


def states_spacing(path: Path, suffix: str, ndim: int) -> bool:
    """Whether the text header gives a length to each of the ``ndim`` axes.

    Args:
        path: the header, or the file that begins with it.
        suffix: its ending in lower case.
        ndim: axes of the image; further axes (channels, time) need no length.
    """
    lines = _lines(path)
    if suffix in _META_IMAGE:
        names = [line.partition("=")[0].strip() for line in lines]
        return "ElementSpacing" in names or "ElementSize" in names
    for line in lines:
        name, colon, values = line.partition(":")
        if not line.strip():
            break
        if colon and name.strip().lower() == "space directions":
            return True
        if colon and name.strip().lower() == "spacings":
            return sum(_is_number(word) for word in values.split()) >= ndim
    return False


def lost_origin(path: Path, suffix: str) -> str:
    """The line of a MetaImage header whose position holds NaN or infinity; empty where there is none.

    ITK takes 0 along every axis then. A NRRD of that kind it refuses.
    """
    for line in _lines(path) if suffix in _META_IMAGE else ():
        name, _, values = line.partition("=")
        if name.strip() == "ElementDataFile":
            break
        if name.strip() in ("Offset", "Position", "Origin") and not all(map(_is_number, values.split())):
            return line.strip()
    return ""


def _lines(path: Path) -> list[str]:
    with path.open("rb") as handle:
        return handle.read(_MOST_BYTES).decode("latin-1").splitlines()


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False
