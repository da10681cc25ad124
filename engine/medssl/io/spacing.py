"""Whether an NRRD or MetaImage header states a voxel size; ITK takes 1 mm where it does not."""

from __future__ import annotations

import math
from pathlib import Path

_MOST_BYTES = 1 << 16


def states_spacing(path: Path, suffix: str, ndim: int) -> bool:
    """Whether the text header gives a length to each of the ``ndim`` axes.

    Args:
        path: the header, or the file that begins with it.
        suffix: its ending in lower case.
        ndim: axes of the image; further axes (channels, time) need no length.
    """
    with path.open("rb") as handle:
        lines = handle.read(_MOST_BYTES).decode("latin-1").splitlines()
    if suffix in (".mha", ".mhd"):
        names = [line.partition("=")[0].strip() for line in lines]
        return "ElementSpacing" in names or "ElementSize" in names
    for line in lines:
        name, colon, values = line.partition(":")
        if not line.strip():
            break
        if colon and name.strip().lower() == "space directions":
            return True
        if colon and name.strip().lower() == "spacings":
            return sum(_is_length(word) for word in values.split()) >= ndim
    return False


def _is_length(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False
