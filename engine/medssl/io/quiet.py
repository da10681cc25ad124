"""Keep C libraries from writing on the user's terminal."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import SimpleITK as sitk

# mypy: disable-error-code="no-untyped-call"
# SimpleITK ships no annotations.

logger = logging.getLogger(__name__)

_one_at_a_time = threading.Lock()

# Without this ITK prints warnings through its own window class, which quiet_libraries cannot see on Windows.
sitk.ProcessObject.SetGlobalWarningDisplay(False)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Send what MetaIO, nifticlib and libjpeg write to file descriptors 1 and 2 into the debug log.

    These libraries print their complaints themselves and then fail with an exception all the same.
    A command promises exactly one error line and one JSON object, so the exception is the only thing to
    keep. What Python and C still hold back of our own output is written first. A descriptor that cannot
    be used (a windowed interpreter) is left alone.
    """
    with _one_at_a_time, tempfile.TemporaryFile() as captured:
        _flush()
        saved = {number: copy for number in (1, 2) if (copy := _copy(number)) is not None}
        for number in saved:
            os.dup2(captured.fileno(), number)
        try:
            yield
        finally:
            _flush_c()  # libjpeg's words wait in a buffer of C where stdout is a pipe or a file
            for number, copy in saved.items():
                os.dup2(copy, number)
                os.close(copy)
            captured.seek(0)
            text = captured.read().decode(errors="replace").strip()
            if text:
                logger.debug("from the image library: %s", " | ".join(text.splitlines()))


def _copy(number: int) -> int | None:
    try:
        return os.dup(number)
    except OSError:
        return None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):  # its reader went away, or it is closed
                stream.flush()
    _flush_c()


def _flush_c() -> None:
    """Empty the buffers of C's own streams."""
    with suppress(AttributeError, OSError, TypeError):  # no C library to be found under this name
        ctypes.CDLL("ucrtbase" if os.name == "nt" else None).fflush(None)
