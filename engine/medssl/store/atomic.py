"""Files that are either the old one or the new one, never half of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends without an error.

    The bytes and the new name are on disk when the block returns; after a crash or an exception
    the old file is still there and the unfinished one is removed or ignored.

    Args:
        path: the file to create or replace; its folder exists.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A full disk met while ``path`` is written bears its name: the system's error has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.filename = os.fspath(path)
        raise


def save_array(file: BinaryIO, array: NDArray[Any]) -> None:
    """Write an array as ``.npy``, piece by piece.

    ``np.save`` hands a file to C, whose error on a full disk does not say that it is full.
    """
    np.lib.format.write_array(_Pieces(file), np.asanyarray(array), allow_pickle=False)


class _Pieces:
    """A stream that NumPy cannot hand to C."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        return self._file.write(data)


def write_atomically(path: Path, text: str) -> None:
    """Replace the text of ``path`` in one go (UTF-8)."""
    with atomic_file(path) as file:
        file.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Make new names in ``folder`` survive a power cut, where the system can (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
