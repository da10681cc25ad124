"""Results as files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from medssl.evaluation.cells import Cell
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
    values = json.loads(files[0].read_text())
    assert values["summary"][0]["mean"] == pytest.approx(0.65)
    assert values["gains"][0]["mean"] == pytest.approx(0.2)
    assert len(values["cells"]) == 4
    text = files[2].read_text()
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
