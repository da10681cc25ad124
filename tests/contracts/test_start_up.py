"""Opening the plugin and asking for help stay fast: no torch, no monai, times within their limits."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "monai", "lightning_fabric", "faiss", "sklearn")


def loaded_after(statement: str) -> set[str]:
    """Which heavy packages a clean interpreter holds after ``statement``."""
    code = f"import sys; {statement}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import medssl",
        "import medssl.cli",
        "import medssl.commands",
        "import napari_medssl",
        "import napari_medssl._entry",
    ],
)
def test_import_loads_nothing_heavy(statement: str) -> None:
    assert loaded_after(statement) == set()


def test_help_answers_within_a_second() -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "medssl", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
        assert b"demo" in done.stdout
    assert statistics.median(times) <= 1.0
