"""A place where nifticlib finds the file that was meant, and no other."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RIVALS = (".nii", ".nii.gz", ".nia", ".hdr", ".hdr.gz", ".img", ".img.gz")
"""What nifticlib may open where a name with the same stem is asked for."""


@contextmanager
def apart(path: Path, suffix: str) -> Iterator[Path]:
    """The NIfTI file under a name without rivals.

    Asked for ``x.nii.gz``, nifticlib opens ``x.nii`` where there is one, and it knows no endings in mixed
    case. Such a file is read through a link in a folder of its own, or through a copy where the system has
    no links.

    Args:
        path: the file.
        suffix: its ending in lower case, ".nii" or ".nii.gz".
    """
    ending = path.name[-len(suffix) :]
    if ending in (suffix, suffix.upper()) and not _has_rival(path, ending):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="medssl-") as folder:
        place = Path(folder) / f"scan{suffix}"
        try:
            place.symlink_to(path.absolute())
        except OSError:
            shutil.copyfile(path, place)
        yield place


def _has_rival(path: Path, ending: str) -> bool:
    stem = path.name[: -len(ending)]
    names = (stem + form for rival in _RIVALS for form in (rival, rival.upper()))
    others = (path.with_name(name) for name in names if name != path.name)
    return any(other.exists() and not other.samefile(path) for other in others)
