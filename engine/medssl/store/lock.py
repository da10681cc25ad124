"""Locks that other windows and programs respect."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: no lock, so two windows on one project are not told apart
    fcntl = None  # type: ignore[assignment]

CAN_LOCK = fcntl is not None
_PATIENCE = 3.0  # seconds; the work under a lock takes milliseconds
_BETWEEN_TRIES = 0.01


def lock(file: IO[bytes]) -> None:
    """Take an open file for this program; closing it gives the lock back.

    Raises:
        OSError: another program has it.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else is in a block on the same lock file; a short wait for who is.

    Args:
        path: the lock file; made where it is missing, and left there.

    Raises:
        OSError: the file cannot be made, or somebody else holds it for too long.
    """
    end = time.monotonic() + _PATIENCE
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "rb") as file:
        while True:
            try:
                lock(file)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
            time.sleep(_BETWEEN_TRIES)
        yield
