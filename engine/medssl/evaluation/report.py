"""Results as files: JSON for programs, CSV for spreadsheets, Markdown for readers, a plot to look at."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medssl.evaluation.cells import Cell
from medssl.evaluation.plots import plot_bars, plot_curves
from medssl.evaluation.summary import Summary, curves, gains, summarise
from medssl.store.atomic import write_atomically

MAIN_METRICS = {
    "transfer": "dice",
    "interactive": "last",
    "retrieval": "precision",
    "label-fraction": "@",
    "convergence": "speed_up",
    "robustness": "loss",
}
"""The metric of each protocol that is compared with the goals; "@": one per share of the labels."""

_TITLES = {
    "dice": "mean Dice in the other subjects",
    "first": "Dice after the first clicks",
    "last": "Dice after the last round",
    "mean": "Dice averaged over the rounds",
    "reached": "share of runs that reach the goal",
    "voxels_to_goal": "labelled voxels until the goal, where reached",
    "precision": "precision of the hits",
    "chance": "precision by chance",
    "speed_up": "steps saved until the best score from scratch",
    "steps_to_target": "steps until the best score from scratch, where reached",
    "target": "best score from scratch",
    "best": "best score of any look",
    "loss": "score lost on perturbed scans, mean over the families",
    "precision loss": "search precision lost from perturbed scans, mean over the families",
    "auc": "mean AUC in the other subjects",
}
_SHORT = {"dice": "Dice", "auc": "AUC"}
_CURVES = {
    "interactive": ("voxels", "labelled voxels"),
    "label-fraction": ("percent", "training subjects, %"),
    "convergence": ("steps", "steps"),
}
"""Protocols drawn as curves: the series along the horizontal axis and its title."""
_AS_COUNT = ("voxels_to_goal", "steps_to_target")


@dataclass(frozen=True)
class Results:
    """All cells of one protocol and what they were made from.

    Args:
        protocol: its name.
        cells: the measurements.
        settings: the settings of the command.
        environment: `medssl.evaluation.environment.environment`.
        data: per table: checksum, subjects, notes.
        description: what was measured, one sentence.
        weights: name and checksum of the weights under test.
        reference: the kind that all others are compared with; "" compares the kind "weights" with all others.
    """

    protocol: str
    cells: Sequence[Cell]
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    data: Mapping[str, Any]
    description: str
    weights: Mapping[str, str] = field(default_factory=dict)
    reference: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values: summary first, then every cell."""
        return {
            "protocol": self.protocol,
            "description": self.description,
            "summary": [asdict(row) for row in summarise(self.cells)],
            "gains": [asdict(row) for row in self.gains()],
            "weights": dict(self.weights),
            "settings": dict(self.settings),
            "data": dict(self.data),
            "environment": dict(self.environment),
            "cells": [asdict(cell) for cell in self.cells],
        }

    def gains(self) -> list[Summary]:
        """The main metrics as differences, paired by seed.

        Of the weights under test and every other kind; or of every kind and the ``reference``.
        """
        kinds = list(dict.fromkeys(cell.kind for cell in self.cells))
        if self.reference not in kinds and "weights" not in kinds:
            return []
        pairs = [("weights", kind) for kind in kinds if kind != "weights"]
        if self.reference:
            pairs = [(kind, self.reference) for kind in kinds if kind != self.reference]
        metrics = main_metrics(self.protocol, self.cells)
        return [row for metric in metrics for pair in pairs for row in gains(self.cells, metric, *pair)]


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write results.json, results.csv, results.md and plot.png.

    Returns:
        The files, in that order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in ("results.json", "results.csv", "results.md", "plot.png")]
    write_atomically(files[0], json.dumps(results.to_json(), indent=1) + "\n")
    write_atomically(files[1], as_csv(results.cells))
    write_atomically(files[2], as_markdown(results))
    _plot(results, files[3])
    return files


def main_metrics(protocol: str, cells: Sequence[Cell]) -> list[str]:
    """The metrics of a protocol that are compared with goals, in the order in which they appear."""
    main = MAIN_METRICS[protocol]
    found = list(dict.fromkeys(name for cell in cells for name in cell.metrics))
    return [name for name in found if (main in name if main == "@" else main == name)]


def title(metric: str) -> str:
    """What a metric is, in words."""
    name, at, share = metric.partition("@")
    return f"{_TITLES[name]}, {share} % of the labels" if at else _TITLES.get(metric, metric)


def _plot(results: Results, path: Path) -> None:
    protocol, cells = results.protocol, results.cells
    if protocol in _CURVES:
        x, x_title = _CURVES[protocol]
        y = next((name for cell in cells for name in cell.series if name != x), "")
        is_logarithmic = protocol == "label-fraction"
        plot_curves(
            path, curves(cells, x, y), x_title, f"mean {_SHORT.get(y, y)}", is_logarithmic=is_logarithmic
        )
    elif protocol == "robustness":
        families = [name for name in cells[0].series if name != "strength"]
        lines = {
            (f"{data}, {family}", kind): line
            for data in dict.fromkeys(cell.data for cell in cells)
            for family in families
            for (_, kind), line in curves(
                [cell for cell in cells if cell.data == data], "strength", family
            ).items()
        }
        plot_curves(path, lines, "strength of the change", "score")
    else:
        metric = MAIN_METRICS[protocol]
        plot_bars(path, [row for row in summarise(cells) if row.metric == metric], _TITLES[metric])


def as_csv(cells: Sequence[Cell]) -> str:
    """One line per number: metrics of every cell, and its series by round."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["protocol", "data", "kind", "seed", "subject", "metric", "round", "value"])
    for cell in cells:
        start = [cell.protocol, cell.data, cell.kind, cell.seed, cell.subject]
        for name, value in cell.metrics.items():
            writer.writerow([*start, name, "", f"{value:.6g}"])
        for name, values in cell.series.items():
            for turn, value in enumerate(values):
                writer.writerow([*start, name, turn, f"{value:.6g}"])
    return text.getvalue()


def as_markdown(results: Results) -> str:
    """A table per metric, feature kinds down, data tables across; then where the numbers come from."""
    rows = summarise(results.cells)
    lines = [f"# {results.protocol}", "", results.description, ""]
    lines.append("Mean ± standard deviation over seeds; all numbers but counts in percent.")
    for metric in dict.fromkeys(row.metric for row in rows):
        lines += ["", f"## {title(metric)}", "", *_table(rows, metric)]
    differences = results.gains()
    for metric in dict.fromkeys(row.metric for row in differences):
        lines += ["", f"## Difference, paired by seed: {title(metric)}", "", *_table(differences, metric)]
    lines += ["", "## Where these come from", ""]
    lines += [f"- weights: {', '.join(f'{k} {v}' for k, v in results.weights.items())}"]
    for name, facts in results.data.items():
        notes = "".join(f"; {note}" for note in facts["notes"])
        lines.append(f"- {name}: {facts['subjects']} subjects, table sha256 {facts['sha256'][:16]}{notes}")
    lines += [f"- {key}: {_plain(value)}" for key, value in results.environment.items() if value]
    lines += [f"- settings: {_plain(results.settings)}"]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Summary], metric: str) -> list[str]:
    chosen = {(row.kind, row.data): row for row in rows if row.metric == metric}
    tables = list(dict.fromkeys(data for _, data in chosen))
    kinds = list(dict.fromkeys(kind for kind, _ in chosen))
    lines = ["| features | " + " | ".join(tables) + " |", "|---|" + "---|" * len(tables)]
    for kind in kinds:
        numbers = [_number(chosen.get((kind, data)), metric) for data in tables]
        lines.append(f"| {kind} | " + " | ".join(numbers) + " |")
    return lines


def _number(row: Summary | None, metric: str) -> str:
    if row is None:
        return "-"
    return row.shown(1 if metric in _AS_COUNT else 100)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items() if v not in ("", None))
    return str(value)
