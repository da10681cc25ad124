"""`medssl evaluate`: measure by one protocol, write the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.commands.workspace import Workspace
from medssl.config.evaluate import SUPERVISED, EvaluateConfig
from medssl.config.resume import under_way
from medssl.data.table import read_data
from medssl.errors import InputError
from medssl.evaluation.report import Results, main_metrics, write_report
from medssl.evaluation.summary import summarise
from medssl.jobs.progress import Progress, Steps


@dataclass(frozen=True)
class EvaluateResult:
    """Where the report lies and what it says.

    Args:
        files: results.json, results.csv, results.md, plot.png.
        results: the content of results.json.
    """

    files: tuple[Path, ...]
    results: Results

    def to_json(self) -> dict[str, Any]:
        """Files, and all but the single cells."""
        values = self.results.to_json()
        del values["cells"]
        return {"files": [str(file) for file in self.files], **values}

    def to_text(self) -> str:
        """For the terminal."""
        metrics = main_metrics(self.results.protocol, self.results.cells)
        lines = [
            f"{row.data}, {row.kind}: {row.metric} {row.shown()}"
            for row in summarise(self.results.cells)
            if row.metric in metrics
        ]
        return "\n".join([*lines, *(str(file) for file in self.files)])


def run(config: EvaluateConfig, workspace: Workspace | None = None) -> Steps[EvaluateResult]:
    """Measure by one protocol and write the report.

    Cells that are already in ``config.out`` with the same signature are taken from there, so that a
    stopped evaluation continues, and another protocol finds embeddings and trained networks made.

    Args:
        config: settings.
        workspace: gives warm encoders.

    Raises:
        InputError: tables, weights or settings that cannot be used; each names the way out.
    """
    from medssl.commands.evaluate import frozen, supervised

    names = [table.stem for table in config.data]
    if len(set(names)) < len(names):
        raise InputError(f"--data: two tables are called {', '.join(names)}; give each its own file name")
    room = supervised if config.protocol in SUPERVISED else frozen
    warm = workspace or Workspace(config.device)
    with under_way(config):
        results = yield from room.measure(_suited(config, warm), warm)
        files = write_report(results, config.out / config.protocol)
    total = len(results.cells)
    yield Progress(total, total, config.protocol, message=f"wrote {files[2]}")
    return EvaluateResult(tuple(files), results)


def _suited(config: EvaluateConfig, workspace: Workspace) -> EvaluateConfig:
    """The settings with the bundled encoder of images where "default" meets a table of those."""
    scans = [row.image for row in read_data(config.data[0])]
    encoders = tuple(workspace.suited(name, scans) for name in config.encoder)
    return config.model_copy(update={"encoder": encoders})
