"""The viewer as a process of its own, so that the engine knows no napari."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

from medssl.errors import InputError
from medssl.jobs.screen import has_display, virtual_screen

LONGEST = 600.0
"""Seconds after which a viewer that should only draw one picture is given up."""


def save_screenshot(project: Path, picture: Path, *, on_display: bool = False) -> None:
    """Open the project in the viewer, save its picture, close it.

    Args:
        project: project folder.
        picture: PNG file to write.
        on_display: on the user's screen; a virtual one by default.

    Raises:
        InputError: no viewer or no virtual screen is installed, or the viewer failed.
    """
    _needs_viewer()
    with nullcontext(dict(os.environ)) if on_display else virtual_screen() as environment:
        try:
            done = subprocess.run(
                [*_viewer(project), "--screenshot", str(picture)],
                env=environment,
                capture_output=True,
                text=True,
                timeout=LONGEST,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"the viewer drew nothing within {LONGEST:.0f} s") from error
    if done.returncode or not picture.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"the viewer ended with code {done.returncode}: {last}")


def open_viewer(project: Path) -> subprocess.Popen[bytes]:
    """Open the project in the viewer on the user's screen; it outlives this process.

    What it says goes to ``viewer.log`` in the project: with the output of this process in its hands, a
    program that reads that output would wait until the viewer is closed.

    Raises:
        InputError: no viewer is installed.
    """
    _needs_viewer()
    with (project / "viewer.log").open("wb") as log:
        return subprocess.Popen(
            _viewer(project),
            env=dict(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def can_open(headless: bool) -> bool:
    """Whether the user has a screen and wants to see it used."""
    return not headless and has_display()


def _viewer(project: Path) -> list[str]:
    return [sys.executable, "-m", "napari_medssl", "--project", str(project)]


def _needs_viewer() -> None:
    if find_spec("napari") is None or find_spec("qtpy") is None:
        raise InputError("no viewer is installed: pip install 'napari-medssl[cpu,gui,demo]' for a screenshot")
