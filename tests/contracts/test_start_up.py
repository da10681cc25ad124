"""Opening the plugin and asking for help stay fast: no torch, no monai, times within their limits."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

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
        "import napari_medssl.plugin",
    ],
)
def test_import_loads_nothing_heavy(statement: str) -> None:
    assert loaded_after(statement) == set()


def test_help_answers_within_a_second() -> None:
    """Processor time, which a busy machine does not change; the benchmark measures the wall clock."""
    times = []
    for _ in range(3):
        before = processor_seconds()
        done = subprocess.run([sys.executable, "-m", "medssl", "--help"], capture_output=True, check=True)
        times.append(processor_seconds() - before)
        assert b"demo" in done.stdout
    assert statistics.median(times) <= 1.0


def processor_seconds() -> float:
    """What finished child processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
