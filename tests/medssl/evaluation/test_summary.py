"""Mean and spread over seeds."""

from __future__ import annotations

import pytest

from medssl.evaluation.cells import Cell
from medssl.evaluation.summary import curves, gains, spread, summarise


def cell(kind: str, seed: int, dice: float, **metrics: float) -> Cell:
    return Cell(
        "transfer",
        "knees",
        kind,
        seed,
        "s",
        {"dice": dice, **metrics},
        {"dice": [0.0, dice], "voxels": [10.0, 20.0]},
    )


def test_mean_and_sample_deviation() -> None:
    assert spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert spread([4.0]) == (4.0, 0.0)


def test_cells_of_a_seed_are_averaged_first() -> None:
    (row,) = summarise([cell("raw", 0, 0.2), cell("raw", 0, 0.4), cell("raw", 1, 0.5)])
    assert row.mean == pytest.approx((0.3 + 0.5) / 2)
    assert row.sd == pytest.approx(0.2 / 2**0.5)
    assert row.seeds == 2
    assert row.shown() == "40.0 ± 14.1"


def test_a_single_seed_has_no_spread_to_show() -> None:
    (row,) = summarise([cell("raw", 0, 0.2)])
    assert row.shown() == "20.0"


def test_absent_metric_counts_only_where_it_is() -> None:
    rows = summarise([cell("raw", 0, 0.2, cost=7.0), cell("raw", 1, 0.4)])
    cost = next(row for row in rows if row.metric == "cost")
    assert (cost.mean, cost.seeds) == (7.0, 1)


def test_gain_is_paired_by_seed() -> None:
    cells = [
        cell("weights", 0, 0.5),
        cell("weights", 1, 0.9),
        cell("random", 0, 0.4),
        cell("random", 1, 0.8),
        cell("random", 2, 0.0),
    ]
    (row,) = gains(cells, "dice", "weights", "random")
    assert row.mean == pytest.approx(0.1)
    assert row.sd == pytest.approx(0.0, abs=1e-12)
    assert row.seeds == 2


def test_curves_average_over_seeds() -> None:
    result = curves([cell("raw", 0, 0.2), cell("raw", 1, 0.4)], "voxels", "dice")
    x, y, sd = result["knees", "raw"]
    assert x == [10.0, 20.0]
    assert y == pytest.approx([0.0, 0.3])
    assert sd == pytest.approx([0.0, 0.2 / 2**0.5])
