"""Figures with limits: measured, checked, printed as a table and kept in docs/results."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
TABLE = pytest.StashKey[list["Figure"]]()


@dataclass(frozen=True)
class Figure:
    """One measured number and the limit it is held to.

    Args:
        name: what was measured.
        value: median of the runs.
        unit: unit of value and limit; "x" for a ratio.
        limit: largest ("<=") or smallest (">=") value that passes.
        relation: "<=" or ">=".
        reference: what a ratio is relative to, or how the value was taken.
        runs: how many runs the median is over.
    """

    name: str
    value: float
    unit: str
    limit: float
    relation: str
    reference: str
    runs: int

    @property
    def passes(self) -> bool:
        """Whether the value keeps the limit."""
        return self.value <= self.limit if self.relation == "<=" else self.value >= self.limit


class Figures:
    """Where benchmarks put their numbers."""

    def __init__(self) -> None:
        self.taken: list[Figure] = []

    def at_most(
        self, name: str, value: float, limit: float, unit: str, *, reference: str, runs: int = 1
    ) -> None:
        """Record a value and fail where it exceeds the limit."""
        self._check(Figure(name, value, unit, limit, "<=", reference, runs))

    def at_least(
        self, name: str, value: float, limit: float, unit: str, *, reference: str, runs: int = 1
    ) -> None:
        """Record a value and fail where it stays below the limit."""
        self._check(Figure(name, value, unit, limit, ">=", reference, runs))

    def _check(self, figure: Figure) -> None:
        self.taken.append(figure)
        assert figure.passes, f"{figure.name}: {figure.value:.4g} {figure.unit}, limit {figure.limit:g}"


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """The table of this run; written when it ends."""
    figures = Figures()
    yield figures
    request.config.stash[TABLE] = figures.taken
    if figures.taken:
        write_results(figures.taken)


@pytest.fixture(scope="session")
def seconds() -> Callable[..., list[float]]:
    """Median seconds of several functions, run in turns so that a busy spell hits all of them.

    ``wait`` is called before each reading of the clock: what a GPU has been told to do is not done yet.
    """

    def measure(
        *functions: Callable[[], object], runs: int, wait: Callable[[], object] = lambda: None
    ) -> list[float]:
        times: list[list[float]] = [[] for _ in functions]
        for _ in range(runs):
            for function, taken in zip(functions, times, strict=True):
                wait()
                start = time.perf_counter()
                function()
                wait()
                taken.append(time.perf_counter() - start)
        return [statistics.median(taken) for taken in times]

    return measure


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    if taken := config.stash.get(TABLE, []):
        terminalreporter.section("figures")
        for figure in taken:
            mark = "ok  " if figure.passes else "MISS"
            terminalreporter.line(
                f"{mark} {figure.name}: {figure.value:.4g} {figure.unit} "
                f"({figure.relation} {figure.limit:g}; {figure.reference})"
            )


def write_results(taken: list[Figure]) -> None:
    """Merge the figures of this run into benchmarks.json and draw benchmarks.md from it."""
    path = RESULTS / "benchmarks.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.exists() else {}
    origin = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": machine(),
    }
    for figure in taken:
        kept[figure.name] = {**asdict(figure), "passes": figure.passes, **origin}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"figures": kept}, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Benchmarks",
        "",
        "Written by `tox -e test -- -m benchmark`. Ratios are of medians, taken in turns within one run.",
        "",
        "| figure | value | limit | reference | runs | commit |",
        "|---|---|---|---|---|---|",
    ]
    for name, f in kept.items():
        value = f"{f['value']:.3g} {f['unit']}" + ("" if f["passes"] else " (missed)")
        limit = f"{f['relation']} {f['limit']:g} {f['unit']}"
        lines.append(f"| {name} | {value} | {limit} | {f['reference']} | {f['runs']} | {f['commit']} |")
    last = max(kept.values(), key=lambda f: f["date"])
    lines += ["", f"Machine of the last run: {last['machine']}; {last['date']}.", ""]
    (RESULTS / "benchmarks.md").write_text("\n".join(lines), encoding="utf-8")


def commit() -> str:
    """Short hash of the code measured, marked where the tree was changed."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def machine() -> str:
    """Processor and its cores, and the GPU if there is one."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores{gpu}, {platform.system()}"
