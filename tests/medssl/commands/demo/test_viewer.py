"""The viewer stays open on a display while the demo ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from medssl.commands.demo import viewer
from medssl.io import write_volume
from medssl.jobs.screen import virtual_screen
from medssl.store.project import Project
from medssl.volume import Geometry, Volume

OPEN = "import sys; from pathlib import Path; from medssl.commands.demo.viewer import open_viewer; "
OPEN += "print(open_viewer(Path(sys.argv[1])).pid)"
LONGEST = 300.0  # seconds; a busy machine takes long to draw


@pytest.mark.gui
@pytest.mark.slow
def test_the_window_outlives_the_process_that_opened_it(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("napari")
    grab = pytest.importorskip("PIL.ImageGrab").grab
    volume = Volume(rng.integers(0, 900, (1, 8, 30, 30)).astype(np.int16), Geometry.from_arrays((8, 30, 30)))
    write_volume(volume, tmp_path / "scan_mr.nii.gz")
    project = Project.create(tmp_path / "project")
    project.add_volume(volume, tmp_path / "scan_mr.nii.gz")
    with virtual_screen() as environment:
        command = [sys.executable, "-c", OPEN, str(project.folder)]
        # its output is read to the end: the viewer must not hold on to it
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LONGEST, check=True
        )
        pid = int(done.stdout)
        try:
            begin, colours = time.monotonic(), 0
            while colours < 50 and time.monotonic() - begin < LONGEST:
                time.sleep(0.5)
                colours = len(grab(xdisplay=environment["DISPLAY"]).getcolors(1_000_000))
            assert colours >= 50, (project.folder / "viewer.log").read_text()
            os.kill(pid, 0)  # still there
        finally:
            os.kill(pid, signal.SIGTERM)


def test_a_display_is_used_unless_the_user_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":7")
    assert viewer.can_open(headless=False)
    assert not viewer.can_open(headless=True)
    monkeypatch.delenv("DISPLAY")
    assert not viewer.can_open(headless=False)
