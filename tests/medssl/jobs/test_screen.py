"""The virtual screen answers, and is gone afterwards."""

from __future__ import annotations

import subprocess

import pytest

from medssl.errors import InputError
from medssl.jobs import screen


@pytest.mark.gui
def test_screen_answers_while_open() -> None:
    ask = "import os, socket; s = socket.socket(socket.AF_UNIX); s.connect(os.environ['X_SOCKET'])"
    with screen.virtual_screen("64x48x24") as environment:
        number = environment["DISPLAY"].removeprefix(":")
        place = {**environment, "X_SOCKET": f"/tmp/.X11-unix/X{number}"}
        subprocess.run(["python3", "-c", ask], env=place, check=True)
    assert subprocess.run(["python3", "-c", ask], env=place, capture_output=True, check=False).returncode


def test_absent_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="xvfb"), screen.virtual_screen():
        pass


def test_display_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":7")
    assert screen.has_display()
    monkeypatch.delenv("DISPLAY")
    assert not screen.has_display()
