"""Files that are complete or absent, never half written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medssl.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to the yielded path; when the block succeeds its files take their final names.

    The new file lies in a hidden folder beside ``path``, on the same disk, so the move is atomic and
    a failure leaves an older file untouched. Formats with a header and a data file write both; the
    header is moved last.

    Args:
        path: the final file; its folder is made where absent.

    Raises:
        InputError: the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
            yield Path(folder) / path.name
            for made in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):
                with made.open("rb") as handle:
                    os.fsync(handle.fileno())
                made.replace(path.parent / made.name)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
