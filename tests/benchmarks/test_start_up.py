"""What the plugin adds to napari's start, and how fast help comes."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest

pytestmark = pytest.mark.benchmark


@pytest.mark.parametrize(
    ("name", "before", "module"),
    [
        ("plugin entry after import napari", "import napari", "_entry"),
        ("plugin in an open viewer", "from napari._qt import qt_main_window", "plugin"),
    ],
)
def test_plugin_import(figures, name: str, before: str, module: str) -> None:
    """The entry is what the manifest names; the plugin itself comes when its widget is opened."""
    code = (
        f"import time; {before}; start = time.perf_counter(); import napari_medssl.{module}; "
        "print(time.perf_counter() - start)"
    )
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
        for _ in range(5)
    ]
    median = statistics.median(runs)
    figures.at_most(name, median, 0.3, "s", reference=f"clean process, after `{before}`", runs=5)


def test_help(figures, seconds) -> None:
    command = [sys.executable, "-m", "medssl", "--help"]
    [median] = seconds(lambda: subprocess.run(command, capture_output=True, check=True), runs=5)
    figures.at_most("medssl --help", median, 1.0, "s", reference="clean process, wall clock", runs=5)
