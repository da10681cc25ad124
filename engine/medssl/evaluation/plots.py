"""Plots of results, drawn without a display and without global state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.errors import MissingDependencyError
from medssl.evaluation.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "weights": "#0072B2",
    "random": "#E69F00",
    "raw": "#999999",
    "filters": "#009E73",
    "scratch": "#999999",
}
"""Okabe-Ito colours: told apart with every kind of colour vision."""
_PANELS = 5
"""Panels side by side, at most."""
_FEW = 6
"""Feature kinds whose legend finds room in a panel."""
_OTHERS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")


def plot_bars(path: Path, rows: Sequence[Summary], title: str) -> None:
    """One group of bars per table, one bar per feature kind, whiskers of one standard deviation.

    Args:
        path: PNG to write.
        rows: one metric.
        title: what the bars are; written at the axis.
    """
    tables = list(dict.fromkeys(row.data for row in rows))
    kinds = list(dict.fromkeys(row.kind for row in rows))
    colours = colours_of(kinds)
    again = repeated(colours)
    figure = _figure(width=2.0 + max(1.6, 0.2 * len(kinds)) * len(tables), height=3.6)
    axes: Any = figure.subplots()
    width = 0.8 / max(1, len(kinds))
    for position, kind in enumerate(kinds):
        chosen = [row for row in rows if row.kind == kind]
        places = [tables.index(row.data) + (position - (len(kinds) - 1) / 2) * width for row in chosen]
        axes.bar(
            places,
            [row.mean for row in chosen],
            width,
            yerr=[row.sd for row in chosen],
            capsize=2,
            color=colours[kind],
            label=kind,
            hatch="////" if kind in again else None,
            edgecolor="white" if kind in again else None,
        )
    axes.set_xticks(range(len(tables)), tables)
    axes.set_ylim(0, 1)
    axes.set_ylabel(title)
    if len(kinds) > _FEW:
        figure.legend(frameon=False, loc="outside right upper")
    else:
        axes.legend(frameon=False, ncols=max(1, len(kinds)), loc="upper center")
    figure.savefig(path)


def plot_curves(
    path: Path,
    curves: Mapping[tuple[str, str], tuple[list[float], ...]],
    x_title: str,
    y_title: str,
    *,
    is_logarithmic: bool = False,
) -> None:
    """One panel per table, one line per feature kind with a band of one standard deviation.

    Args:
        path: PNG to write.
        curves: (table, kind) -> (x, y, sd of y), see `medssl.evaluation.summary.curves`.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
        is_logarithmic: the horizontal axis, with a tick at every x.
    """
    tables = list(dict.fromkeys(data for data, _ in curves))
    colours = colours_of(kind for _, kind in curves)
    again, few = repeated(colours), len(colours) <= _FEW
    columns = min(len(tables), _PANELS)
    rows = -(-len(tables) // columns)
    figure = _figure(width=(1.0 if few else 2.2) + 2.8 * columns, height=0.2 + 3.2 * rows)
    grid: Any = figure.subplots(rows, columns, squeeze=False, sharey=True)
    panels = grid.ravel()
    for spare in panels[len(tables) :]:
        spare.set_visible(False)
    for axes, table in zip(panels, tables, strict=False):
        for (data, kind), (x, y, sd) in curves.items():
            if data != table:
                continue
            colour = colours[kind]
            axes.plot(x, y, color=colour, label=kind, linestyle="--" if kind in again else "-")
            low = [a - b for a, b in zip(y, sd, strict=True)]
            high = [a + b for a, b in zip(y, sd, strict=True)]
            axes.fill_between(x, low, high, color=colour, alpha=0.15 if few else 0.05, linewidth=0)
            if is_logarithmic:
                axes.set_xscale("log")
                axes.set_xticks(x, [f"{value:g}" for value in x])
                axes.set_xticks([], minor=True)
        axes.set_title(table)
        axes.set_xlabel(x_title)
        axes.set_ylim(0, 1)
    for axes in grid[:, 0]:
        axes.set_ylabel(y_title)
    if few:
        panels[0].legend(frameon=False)
    else:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="outside right upper")
    figure.savefig(path)


def colours_of(kinds: Iterable[str]) -> dict[str, str]:
    """A colour per kind: fixed for the known ones, the rest of the palette in turn for others."""
    names = list(dict.fromkeys(kinds))
    taken = {COLOURS[name] for name in names if name in COLOURS}
    free = cycle([colour for colour in _OTHERS if colour not in taken])
    return {name: COLOURS.get(name) or next(free) for name in names}


def repeated(colours: Mapping[str, str]) -> set[str]:
    """The kinds whose colour an earlier one has too: drawn dashed or hatched."""
    names = list(colours)
    return {name for index, name in enumerate(names) if colours[name] in map(colours.get, names[:index])}


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  optional
        from matplotlib.figure import Figure  # noqa: PLC0415  optional
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "evaluate", "the plot of the results") from error
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
