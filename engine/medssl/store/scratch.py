"""Folders for arrays that do not fit memory, gone when the work is done."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medssl.store.lock import CAN_LOCK, lock

_PREFIX = "scratch-"
_IN_USE = "in-use"  # locked by the program that works there
_YOUNG = 2.0  # seconds in which a folder may be one that is just being made


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder in ``parent`` that is removed at the end; those that killed programs left go first.

    Args:
        parent: several programs may work in it at once.
    """
    for left in parent.glob(f"{_PREFIX}*"):
        if _is_left(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=_PREFIX, dir=parent, ignore_cleanup_errors=True  # Windows keeps mapped files
    ) as name, (Path(name) / _IN_USE).open("wb") as file:  # fmt: skip
        with suppress(OSError):  # some network disks know no locks: nothing is swept there
            lock(file)
        yield Path(name)


def _is_left(folder: Path) -> bool:
    """Whether nobody works in it any more; on disks that know no locks nobody can tell."""
    file = folder / _IN_USE
    try:
        if time.time() - folder.stat().st_mtime < _YOUNG:
            return False
        if not CAN_LOCK:
            file.unlink(missing_ok=True)  # Windows refuses while a program has it open
        elif file.exists():  # not in those of earlier versions
            with file.open("r+b") as stream:
                lock(stream)
        return True
    except OSError:
        return False
