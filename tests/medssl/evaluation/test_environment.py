from __future__ import annotations

from pathlib import Path

import pytest

from medssl.evaluation.environment import environment, portable


def test_paths_of_this_machine_are_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSSL_DATA", str(tmp_path))
    table, other = tmp_path / "tables" / "a.csv", tmp_path.parent / "b.csv"
    assert portable(f"{table},{other},c.csv") == "$MEDSSL_DATA/tables/a.csv,b.csv,c.csv"
    assert portable("--seeds") == "--seeds"
    monkeypatch.setattr("sys.argv", [str(tmp_path / "bin" / "medssl"), "evaluate", "--data", str(table)])
    assert environment("cpu")["command"] == "medssl evaluate --data '$MEDSSL_DATA/tables/a.csv'"
