from __future__ import annotations

from pathlib import Path

import pytest

from medssl.data.held_out import of_held_out, split_scans, spread_over_subjects, wanted_tasks
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


def test_a_few_scans_are_those_of_many_subjects():
    rows = [Row(Path(f"{s}{i}.png"), subject=s, split="val") for s in "abc" for i in range(3)]
    chosen = [row.image.stem for row in spread_over_subjects(rows, 5)]
    assert chosen == ["a0", "b0", "c0", "a1", "b1"]
    assert spread_over_subjects(rows, 20) != rows
    assert len(spread_over_subjects(rows, 20)) == 9
    said = "9 scans of split val"
    assert of_held_out(said, rows, 5) == f"5 scans, spread over 3 subjects, of {said}"
    assert of_held_out(said, rows, 9) == said


def test_tasks_that_a_table_lacks_are_refused():
    rows = [
        Row(Path("a.png"), task="heart", origin="t.csv:2"),
        Row(Path("b.png"), task="liver", split="val", origin="t.csv:3"),
    ]
    assert wanted_tasks(rows, ()) == {"liver"}
    assert wanted_tasks(rows, ("heart", "brain")) == {"heart"}
    with pytest.raises(InputError, match=r"--tasks brain: t.csv has no such task; choose from: heart, liver"):
        wanted_tasks(rows, ("brain",))
