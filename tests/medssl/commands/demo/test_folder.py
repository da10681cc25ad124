"""The project of an earlier demo goes only where nobody worked in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medssl.commands.demo.folder import fresh_project, holds_work
from medssl.errors import InputError
from medssl.store.edits import Edit
from medssl.store.labels import LabelStore
from medssl.store.project import Project
from medssl.volume import Geometry, Volume

SHAPE = (4, 5, 6)


def edit(author: str, value: int = 1) -> Edit:
    after = np.full((1, 2, 2), value, np.uint8)
    return Edit((0, 0, 0), np.zeros_like(after), after, value, author)


def painted(out: Path, *authors: str) -> LabelStore:
    """The project of a demo with a stroke of each author."""
    project, note = fresh_project(out)
    assert note == ""
    volume = Volume(np.zeros((1, *SHAPE), np.int16), Geometry.from_arrays(SHAPE), "MR")
    store = LabelStore(project, project.add_volume(volume, out / "scan.nii.gz").id)
    for author in authors:
        store.journal.append(edit(author))
    return store


def test_a_project_of_the_demo_alone_is_replaced(tmp_path: Path) -> None:
    painted(tmp_path, "demo", "demo").close()
    (tmp_path / "project" / "runs" / "demo").mkdir(parents=True)
    assert not holds_work(tmp_path / "project")
    project, note = fresh_project(tmp_path)
    assert note == ""
    assert project.volumes == ()
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


def paint(store: LabelStore, out: Path) -> None:
    store.journal.append(edit("user", 2))


def point(store: LabelStore, out: Path) -> None:
    store.add_point((1, 1, 1), 1)


def remove(store: LabelStore, out: Path) -> None:
    store.remove(store.add_point((1, 1, 1), 1).id)


def undo(store: LabelStore, out: Path) -> None:
    store.undo()


def train(store: LabelStore, out: Path) -> None:
    (out / "project" / "runs" / "mine").mkdir(parents=True)


def damage(store: LabelStore, out: Path) -> None:
    store.close()
    [journal] = out.glob("project/labels/*/journal.bin")
    journal.write_bytes(journal.read_bytes()[:-3])


def spoil(store: LabelStore, out: Path) -> None:
    (out / "project" / "project.json").write_text("{", encoding="utf-8")


@pytest.mark.parametrize("work", [paint, point, remove, undo, train, damage, spoil])
def test_what_a_person_did_is_renamed_and_said(tmp_path: Path, work) -> None:
    store = painted(tmp_path, "demo")
    work(store, tmp_path)
    store.close()
    before = {p.relative_to(tmp_path / "project"): p.read_bytes() for p in files(tmp_path / "project")}
    project, note = fresh_project(tmp_path)
    [aside] = tmp_path.glob("project-*")
    assert note == f"the project of the earlier demo holds work that is not the demo's: kept as {aside}"
    assert {p.relative_to(aside): p.read_bytes() for p in files(aside)} == before
    assert Project.open(project.folder).volumes == ()
    assert not holds_work(project.folder)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_project_that_no_demo_made_is_an_error(tmp_path: Path) -> None:
    Project.create(tmp_path / "project")
    with pytest.raises(InputError, match="is not of a demo; choose another --out"):
        fresh_project(tmp_path)
