"""A virtual screen for programs that must draw where nobody looks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from medssl.errors import InputError

SIZE = "1600x1000x24"


def has_display() -> bool:
    """Whether this process was given a screen."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextmanager
def virtual_screen(size: str = SIZE) -> Iterator[dict[str, str]]:
    """Start Xvfb on a free display; gives the environment for programs that draw on it.

    Args:
        size: width x height x bits per pixel.

    Raises:
        InputError: Xvfb is not installed or does not start.
    """
    program = shutil.which("Xvfb")
    if program is None:
        raise InputError("no display and no Xvfb: install the system package xvfb for a screenshot")
    read, write = os.pipe()
    command = [
        program,
        "-displayfd",
        str(write),
        "-screen",
        "0",
        size,
        "-nolisten",
        "tcp",
        "+extension",
        "GLX",
    ]
    server = subprocess.Popen(command, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as answer:
            number = (
                answer.readline().strip()
            )  # written when the server accepts clients; empty where it ended
        if not number:
            raise InputError("Xvfb does not start: run it by hand to see why")
        environment = {name: value for name, value in os.environ.items() if name != "WAYLAND_DISPLAY"}
        # Qt's own offscreen platform has no OpenGL: napari needs a real X server.
        yield {**environment, "DISPLAY": f":{number}", "QT_QPA_PLATFORM": "xcb"}
    finally:
        server.terminate()
        server.wait()
