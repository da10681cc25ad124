from __future__ import annotations

from pathlib import Path

import pytest

from medssl.data.held_out import split_scans
from medssl.data.table import Row
from medssl.errors import InputError


def rows(*subjects: str, split: str = "") -> list[Row]:
    return [
        Row(Path(name), subject=name, split=split, origin=f"t.csv:{n}") for n, name in enumerate(subjects)
    ]


def test_val_rows_are_held_out_where_there_are_any():
    train, held, said = split_scans([*rows("a", "b"), *rows("c", split="val")], 0)
    assert [row.subject for row in train] == ["a", "b"]
    assert [row.subject for row in held] == ["c"]
    assert said == "1 scans of split val"


@pytest.mark.parametrize("count", [2, 3, 10])
def test_else_subjects_are_drawn_and_never_straddle(count):
    everyone = [row for name in "abcdefghij"[:count] for row in rows(name, name)]
    train, held, said = split_scans(everyone, 0)
    ours, theirs = {row.subject for row in train}, {row.subject for row in held}
    assert ours
    assert theirs
    assert not ours & theirs
    assert len(train) + len(held) == len(everyone)
    assert f"of {count} subjects" in said
    assert split_scans(everyone, 0) == (train, held, said)


def test_one_subject_is_judged_on_itself_and_that_is_said():
    train, held, said = split_scans(rows("a", "a"), 0)
    assert train == held
    assert "no test at all" in said
    with pytest.raises(InputError, match="nothing to learn from"):
        split_scans(rows("a", split="test"), 0)
