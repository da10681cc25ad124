"""Keep C libraries from writing on the user's terminal."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import SimpleITK as sitk

# mypy: disable-error-code="no-untyped-call"
# SimpleITK ships no annotations.

logger = logging.getLogger(__name__)

_one_at_a_time = threading.Lock()

# Without this ITK prints warnings through its own window class, which quiet_libraries cannot see on Windows.
sitk.ProcessObject.SetGlobalWarningDisplay(False)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Send what MetaIO, nifticlib and libjpeg write to file descriptor 2 into the debug log.

    These libraries print their complaints themselves and then fail with an exception all the same.
    A command promises exactly one error line, so the exception is the only thing to keep. Without a
    usable descriptor (a windowed interpreter) nothing is redirected.
    """
    with _one_at_a_time, tempfile.TemporaryFile() as captured:
        try:
            saved = os.dup(2)
        except OSError:
            yield
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            captured.seek(0)
            text = captured.read().decode(errors="replace").strip()
            if text:
                logger.debug("from the image library: %s", " | ".join(text.splitlines()))
