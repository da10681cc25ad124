"""Results as files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from medssl.evaluation.cells import Cell
from medssl.evaluation.plots import colours_of, repeated
from medssl.evaluation.report import Results, as_csv, write_report


def results(protocol: str) -> Results:
    metric = {"transfer": "dice", "interactive": "last", "retrieval": "precision"}[protocol]
    cells = [
        Cell(
            protocol,
            "knees",
            kind,
            seed,
            "s1",
            {metric: value + 0.1 * seed},
            {"dice": [0.1, value], "voxels": [4.0, 8.0]},
        )
        for kind, value in (("weights", 0.6), ("random", 0.4))
        for seed in (0, 1)
    ]
    data = {"knees": {"sha256": "ab" * 32, "subjects": 4, "notes": ["a note"]}}
    return Results(
        protocol,
        cells,
        {"seeds": 2},
        {"git": "123", "versions": {"torch": "2"}},
        data,
        "A test.",
        {"default": "ff"},
    )


@pytest.mark.parametrize("protocol", ["transfer", "interactive", "retrieval"])
def test_report_has_four_files(tmp_path: Path, protocol: str) -> None:
    files = write_report(results(protocol), tmp_path / "out")
    assert [file.name for file in files] == ["results.json", "results.csv", "results.md", "plot.png"]
    values = json.loads(files[0].read_text(encoding="utf-8"))
    assert values["summary"][0]["mean"] == pytest.approx(0.65)
    assert values["gains"][0]["mean"] == pytest.approx(0.2)
    assert len(values["cells"]) == 4
    text = files[2].read_text(encoding="utf-8")
    assert "| weights | 65.0 ± 7.1 |" in text
    assert "| weights - random | 20.0 ± 0.0 |" in text
    assert all(part in text for part in ("a note", "abababab", "torch 2"))
    with Image.open(files[3]) as image:
        assert min(image.size) > 300


def test_csv_has_one_line_per_number() -> None:
    rows = list(csv.DictReader(as_csv(results("transfer").cells).splitlines()))
    assert len(rows) == 4 * (1 + 2 + 2)
    assert rows[0] == {
        "protocol": "transfer", "data": "knees", "kind": "weights", "seed": "0", "subject": "s1",
        "metric": "dice", "round": "", "value": "0.6",
    }  # fmt: skip


@pytest.mark.parametrize("protocol", ["label-fraction", "convergence", "robustness"])
def test_fine_tuned_protocols_are_compared_with_scratch(tmp_path: Path, protocol: str) -> None:
    metrics = {
        "label-fraction": {"dice@5": 0.3, "dice@100": 0.7},
        "convergence": {"speed_up": 0.5, "best": 0.8, "steps_to_target": 40.0},
        "robustness": {"dice": 0.8, "loss": 0.1},
    }[protocol]
    series = {
        "label-fraction": {"percent": [5.0, 100.0], "dice": [0.3, 0.7]},
        "convergence": {"steps": [0.0, 20.0, 40.0], "dice": [0.1, 0.5, 0.6]},
        "robustness": {"strength": [0.0, 1.0], "gamma": [0.8, 0.7], "rotation": [0.8, 0.6]},
    }[protocol]
    cells = [
        Cell(
            protocol, data, kind, seed, "", {n: v + (kind == "swav") / 10 for n, v in metrics.items()}, series
        )
        for data in ("knees", "hips", "feet")
        for kind in ("swav", "scratch")
        for seed in (0, 1)
    ]
    data = {"knees": {"sha256": "ab" * 32, "subjects": 4, "notes": []}}
    results = Results(protocol, cells, {}, {}, data, "A test.", reference="scratch")
    main = {"label-fraction": ["dice@5", "dice@100"], "convergence": ["speed_up"], "robustness": ["loss"]}
    gained = results.gains()
    assert {row.metric for row in gained} == set(main[protocol])
    assert {row.kind for row in gained} == {"swav - scratch"}
    assert all(row.mean == pytest.approx(0.1) for row in gained)
    files = write_report(results, tmp_path)
    with Image.open(files[3]) as image:
        # six panels stand in two rows, three in one
        assert (image.size[1] > 700) == (protocol == "robustness")
    text = files[2].read_text(encoding="utf-8")
    if protocol == "convergence":
        assert "| swav | 40.1 ± 0.0 |" in text, "steps are no percentages"
    if protocol == "label-fraction":
        assert "## mean Dice in the other subjects, 5 % of the labels" in text


def test_kinds_have_colours_of_their_own() -> None:
    names = ["default", "swav", "scratch", "weights"]
    colours = colours_of(names)
    assert len(set(colours.values())) == 4
    assert colours["scratch"] == colours_of(["scratch"])["scratch"]


def test_kinds_that_share_a_colour_differ_in_their_line() -> None:
    names = [f"method {number}" for number in range(12)]
    colours = colours_of([*names, "scratch"])
    again = repeated(colours)
    assert again == set(names[8:])
    assert len({(colour, name in again) for name, colour in colours.items()}) == 13
