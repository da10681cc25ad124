"""Finished measurements on disk."""

from __future__ import annotations

from pathlib import Path

from medssl.evaluation.cells import Cell, CellStore

CELL = Cell(
    "transfer", "knees", "raw", 3, "subject-1", {"dice": 0.5}, {"dice": [0.1, 0.5]}, {"a": {"b": 1}}, 2.0
)


def test_saved_cell_comes_back(tmp_path: Path) -> None:
    store = CellStore(tmp_path / "cells")
    assert store.load("transfer", "knees", "raw", 3, {"x": 1}) is None
    store.save(CELL, {"x": 1})
    assert store.load("transfer", "knees", "raw", 3, {"x": 1}) == CELL


def test_other_signature_or_seed_is_another_cell(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    store.save(CELL, {"x": 1})
    assert store.load("transfer", "knees", "raw", 3, {"x": 2}) is None
    assert store.load("transfer", "knees", "raw", 4, {"x": 1}) is None


def test_half_written_cell_does_not_count(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    store.save(CELL, {})
    path = store.path("transfer", "knees", "raw", 3, {})
    path.write_text(path.read_text()[:40])
    assert store.load("transfer", "knees", "raw", 3, {}) is None
    path.write_text("{}")
    assert store.load("transfer", "knees", "raw", 3, {}) is None
