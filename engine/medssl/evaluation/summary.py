"""From cells to mean and spread over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medssl.evaluation.cells import Cell


@dataclass(frozen=True)
class Summary:
    """One metric of one feature kind on one table.

    Args:
        data: name of the table.
        kind: feature kind.
        metric: name of the metric.
        mean: over seeds; cells of one seed are averaged first.
        sd: sample standard deviation over seeds, 0 for a single one.
        seeds: how many seeds have the metric.
    """

    data: str
    kind: str
    metric: str
    mean: float
    sd: float
    seeds: int

    def shown(self, factor: float = 100) -> str:
        """Mean and spread, times ``factor``; of a single seed the value alone."""
        spread = f" ± {factor * self.sd:.1f}" if self.seeds > 1 else ""
        return f"{factor * self.mean:.1f}{spread}"


def summarise(cells: Iterable[Cell]) -> list[Summary]:
    """Mean and spread of every metric, in the order in which tables, kinds and metrics appear."""
    values: dict[tuple[str, str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        for metric, value in cell.metrics.items():
            values[cell.data, cell.kind, metric][cell.seed].append(value)
    rows = []
    for (data, kind, metric), by_seed in values.items():
        mean, sd = spread([float(np.mean(numbers)) for numbers in by_seed.values()])
        rows.append(Summary(data, kind, metric, mean, sd, len(by_seed)))
    return rows


def gains(cells: Sequence[Cell], metric: str, kind: str, reference: str) -> list[Summary]:
    """Difference of two kinds per table, paired by seed: both had the same subject and voxels."""
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for cell in cells:
        if metric in cell.metrics:
            found[cell.data][cell.kind][cell.seed] = cell.metrics[metric]
    rows = []
    for data, kinds in found.items():
        shared = sorted(kinds[kind].keys() & kinds[reference].keys())
        if shared:
            mean, sd = spread([kinds[kind][seed] - kinds[reference][seed] for seed in shared])
            rows.append(Summary(data, f"{kind} - {reference}", metric, mean, sd, len(shared)))
    return rows


def curves(cells: Iterable[Cell], x: str, y: str) -> dict[tuple[str, str], tuple[list[float], ...]]:
    """Series averaged over seeds.

    Returns:
        (table, kind) -> (mean of x, mean of y, sd of y), one entry per round that all seeds have.
    """
    series: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        series[cell.data, cell.kind].append(cell)
    result: dict[tuple[str, str], tuple[list[float], ...]] = {}
    for key, group in series.items():
        shared = min(len(cell.series[x]) for cell in group)  # a budget in seconds ends some sooner
        xs = np.array([cell.series[x][:shared] for cell in group])
        ys = np.array([cell.series[y][:shared] for cell in group])
        sd = ys.std(axis=0, ddof=1) if len(group) > 1 else np.zeros(ys.shape[1])
        result[key] = (xs.mean(axis=0).tolist(), ys.mean(axis=0).tolist(), sd.tolist())
    return result


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is 0 for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
