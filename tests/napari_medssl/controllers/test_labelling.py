"""Every stroke is on disk first; the proposal follows; reopening restores all."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.store.edits import Edit
from medssl.store.labels import LabelStore
from medssl.store.project import Project
from medssl.volume import Geometry, Volume
from napari_medssl.controllers.labelling import LabellingController, cell_around
from napari_medssl.session import Session, Source
from napari_medssl.widgets.labelling import LabellingWidget


@pytest.fixture
def make(session: Session, engine: Any, runner: Any):
    made: list[LabellingController] = []

    def build(shared: Session = session) -> tuple[LabellingController, MagicMock]:
        widget = MagicMock(spec=LabellingWidget)
        made.append(LabellingController(shared, widget, engine, runner, report=runner.errors.append))
        return made[-1], widget

    yield build
    for controller in made:
        controller.close()


def stroke(session: Session, start: tuple[int, ...], value: int) -> Edit:
    """Paint as the scene does: the voxels first, then the signal."""
    mask = session.scribbles.array[0]
    box = tuple(slice(a, a + 2) for a in start)
    edit = Edit.between(mask[box].copy(), np.full((2, 2, 2), value, np.uint8), start, class_id=value)
    edit.apply(mask)
    session.stroke.emit(edit)
    return edit


def on_disk(session: Session) -> np.ndarray:
    project = Project.open(session.project)
    return LabelStore(project, project.volumes[0].id).restore()


def test_a_scan_gets_scribbles_and_two_first_classes(make: Any, session: Session, volume: Volume) -> None:
    _, widget = make()
    session.volume = volume
    assert session.scribbles is not None
    assert session.scribbles.array.shape == volume.array.shape
    assert [entry.name for entry in session.classes] == ["background", "target"]
    assert all(np.ptp(entry.colour) > 100 for entry in session.classes), "grey strokes hide on a grey scan"
    widget.setReady.assert_called_with(True)


def test_a_stroke_is_on_disk_when_the_signal_returns(make: Any, session: Session, volume: Volume) -> None:
    make()
    session.volume = volume
    for start, value in (((1, 2, 3), 1), ((4, 5, 6), 2), ((1, 2, 4), 0)):
        stroke(session, start, value)
        np.testing.assert_array_equal(on_disk(session), session.scribbles.array[0])


def test_a_fill_counts_before_the_layer_shows_it(
    make: Any, session: Session, engine: Any, volume: Volume
) -> None:
    make()
    session.volume = volume
    stroke(session, (1, 2, 3), 1)
    box = np.zeros((2, 2, 2), np.uint8)
    session.stroke.emit(Edit((4, 5, 6), box, box + 2, 2))  # the voxels follow when the event is over
    assert engine.calls[-1] == ("probe", 16)
    assert session.scribbles.array[0, 4, 5, 6] == 0


def test_the_proposal_follows_once_two_classes_are_painted(
    make: Any, session: Session, engine: Any, volume: Volume
) -> None:
    _, widget = make()
    session.volume = volume
    stroke(session, (1, 2, 3), 1)
    assert not any(call[0] == "probe" for call in engine.calls)
    assert "two classes" in widget.setStatus.call_args.args[0]
    stroke(session, (4, 5, 6), 2)
    assert engine.calls[-1] == ("probe", 16)
    assert session.proposal is not None
    assert "background 8, target 8" in widget.setStatus.call_args.args[0]


def test_a_proposal_goes_with_the_labels_it_came_from(make: Any, session: Session, volume: Volume) -> None:
    make()
    session.volume = volume
    stroke(session, (1, 2, 3), 1)
    stroke(session, (4, 5, 6), 2)
    assert session.proposal is not None
    session.undo.emit()
    assert session.proposal is None
    session.volume = None
    session.volume = volume
    assert session.scribbles is not None
    assert session.proposal is None, "nor does it come back with the scan"


def test_without_automatic_update_only_the_button_fits(
    make: Any, session: Session, engine: Any, volume: Volume
) -> None:
    controller, _ = make()
    session.volume = volume
    controller._set_automatic(False)
    stroke(session, (1, 2, 3), 1)
    stroke(session, (4, 5, 6), 2)
    assert session.proposal is None
    controller.update_proposal()
    assert session.proposal is not None


def test_reopening_the_scan_restores_everything(make: Any, session: Session, volume: Volume) -> None:
    controller, _ = make()
    session.volume = volume
    stroke(session, (1, 2, 3), 1)
    stroke(session, (4, 5, 6), 2)
    controller.add_class("vessel")
    painted, proposal = session.scribbles.array.copy(), session.proposal.array.copy()
    controller.close()

    later = Session(project=session.project)
    again, widget = make(later)
    later.volume = Volume(volume.array.copy(), volume.geometry, id="another name")
    np.testing.assert_array_equal(later.scribbles.array, painted)
    np.testing.assert_array_equal(later.proposal.array, proposal)
    assert [entry.name for entry in later.classes] == ["background", "target", "vessel"]
    widget.setHistory.assert_called_with(True, False)
    shown: list[Edit] = []
    later.edited.connect(shown.append)
    again.undo()  # a stroke of the earlier session
    assert shown[0].start == (4, 5, 6)
    assert int(shown[0].after.max()) == 0


def test_a_labelled_layer_gets_a_file_in_the_project(
    make: Any, session: Session, volume: Volume, tmp_path: Any
) -> None:
    from medssl.io import read_volume

    controller, _ = make()
    session.source = Source(layer="theirs")
    session.volume = volume
    folder = session.project / "volumes"
    assert not folder.exists(), "a scan that is only looked at is not copied"
    stroke(session, (1, 2, 3), 1)
    (copy,) = folder.iterdir()
    np.testing.assert_array_equal(read_volume(copy).array, volume.array)
    copy.unlink()  # as after a stop in between
    session.volume = None
    session.volume = volume
    assert copy.exists()
    session.source = Source(path=tmp_path / "scan.nii.gz")
    session.volume = Volume(volume.array + 1, volume.geometry)
    stroke(session, (1, 2, 3), 1)
    assert list(folder.iterdir()) == [copy]
    assert controller._tally.labelled == {1: 8}


def test_a_copy_that_was_cancelled_is_made_with_the_next_stroke(
    make: Any, session: Session, volume: Volume, runner: Any
) -> None:
    make()
    session.source = Source(layer="theirs")
    session.volume = volume
    runner.cancelled = {"Keeping the scan"}
    stroke(session, (1, 2, 3), 1)
    assert not (session.project / "volumes").exists()
    runner.cancelled = set()
    stroke(session, (4, 2, 3), 1)
    (copy,) = (session.project / "volumes").iterdir()
    assert copy.stat().st_size > 100


def test_another_project_shows_nothing_of_the_last_one(
    make: Any, session: Session, volume: Volume, tmp_path: Any
) -> None:
    make()
    session.volume = volume
    stroke(session, (1, 2, 3), 1)
    stroke(session, (4, 5, 6), 2)
    session.project = tmp_path / "other"
    assert session.proposal is None
    assert session.scribbles.array.sum() == 0
    session.project = tmp_path / "project"
    assert session.proposal is not None
    assert session.scribbles.array.sum() == 8 + 16


def test_undo_and_redo_show_their_edit(make: Any, session: Session, volume: Volume) -> None:
    controller, widget = make()
    shown: list[Edit] = []
    session.edited.connect(shown.append)
    session.volume = volume
    stroke(session, (1, 2, 3), 2)
    session.undo.emit()
    assert on_disk(session).sum() == 0
    controller.redo()
    assert [int(edit.after.max()) for edit in shown] == [0, 2]
    widget.setHistory.assert_called_with(True, False)


def test_an_accepted_hit_becomes_one_cell_and_spares_other_labels(
    make: Any, session: Session, volume: Volume
) -> None:
    make()
    session.volume = volume
    stroke(session, (4, 10, 10), 1)
    mask = session.scribbles.array[0]
    session.edited.connect(lambda edit: edit.apply(mask))
    session.accepted.emit([(4, 10, 10)], 2)
    assert (mask[4:6, 10:12, 10:12] == 1).all()
    assert mask[4, 9, 9] == 2
    np.testing.assert_array_equal(on_disk(session), mask)


def test_a_cell_is_five_millimetres_wide_and_stays_inside() -> None:
    grid = Geometry.from_arrays((12, 40, 36), (3.0, 1.0, 1.0))
    assert cell_around(grid, (5, 20, 20)) == (slice(5, 6), slice(18, 23), slice(18, 23))
    assert cell_around(grid, (0, 0, 35)) == (slice(0, 1), slice(0, 3), slice(33, 36))


def test_classes_are_renamed_in_the_project(make: Any, session: Session, runner: Any, volume: Volume) -> None:
    controller, _ = make()
    session.volume = volume
    controller.rename_class(2, "tumour")
    assert [entry.name for entry in Project.open(session.project).classes] == ["background", "tumour"]
    controller.rename_class(2, "background")
    assert isinstance(runner.errors[-1], InputError)
    assert session.classes[1].name == "tumour"


def test_two_windows_keep_the_classes_of_each_other(make: Any, session: Session, volume: Volume) -> None:
    first, _ = make()
    session.volume = volume
    other = Session(project=session.project)
    second, _ = make(other)
    other.volume = Volume(volume.array + 1, volume.geometry, "CT", "case-2")
    first.add_class("tumour")
    second.rename_class(2, "liver")
    assert [entry.name for entry in other.classes] == ["background", "liver", "tumour"]
    second.add_class("kidney")
    on_disk = Project.open(session.project).classes
    assert [(entry.id, entry.name) for entry in on_disk] == [
        (1, "background"),
        (2, "liver"),
        (3, "tumour"),
        (4, "kidney"),
    ]
    assert (other.classes, other.active_class) == (on_disk, 4)


def test_a_stroke_that_the_disk_refused_is_said_and_tried_again(
    make: Any, session: Session, runner: Any, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, widget = make()
    session.volume = volume
    journal = controller._store.journal

    def refuse(edit: Edit) -> None:
        raise InputError("the edit was not saved: no space left; free space")

    with monkeypatch.context() as full:
        full.setattr(journal, "append", refuse)
        stroke(session, (1, 2, 3), 1)
        stroke(session, (3, 2, 3), 1)
        session.accepted.emit([(8, 10, 10)], 2)  # not on the screen: forgotten
        session.undo.emit()
    assert "free space" in str(runner.errors[0])
    assert "NOT saved: 2 of the strokes" in widget.setSaved.call_args.args[0]
    assert on_disk(session).sum() == 0
    stroke(session, (6, 5, 6), 2)
    np.testing.assert_array_equal(on_disk(session), session.scribbles.array[0])
    assert controller._tally.labelled == {1: 16, 2: 8}
    assert "is saved to" in widget.setSaved.call_args.args[0]
    with monkeypatch.context() as full:
        full.setattr(journal, "append", refuse)
        stroke(session, (9, 5, 6), 2)
    painted = session.scribbles.array[0].copy()
    session.volume = None  # the last chance
    np.testing.assert_array_equal(on_disk(session), painted)


def test_a_tool_that_is_chosen_again_is_told_again(make: Any, session: Session) -> None:
    controller, _ = make()
    told: list[str] = []
    session.events.tool.connect(told.append)
    for _ in range(2):
        controller._choose_tool("paint")
    assert (told[-1], told.count("paint")) == ("paint", 2)


def test_an_unusable_project_switches_labels_off(
    make: Any, session: Session, volume: Volume, tmp_path: Any
) -> None:
    session.project = tmp_path / "file"
    session.project.touch()
    _, widget = make()
    session.volume = volume
    assert session.scribbles is None
    assert "Labels are off" in widget.setStatus.call_args.args[0]


def test_cancelled_reading_is_said_and_opening_the_scan_again_reads(
    make: Any, session: Session, volume: Volume, runner: Any
) -> None:
    _, widget = make()
    runner.cancelled = {"Reading the labels"}
    session.volume = volume
    assert "cancelled. Open the scan again" in widget.setStatus.call_args.args[0]
    widget.setReady.assert_called_with(False)
    runner.cancelled = set()
    session.volume = Volume(volume.array, volume.geometry)
    assert session.scribbles is not None
    widget.setReady.assert_called_with(True)


def test_export_writes_the_geometry_of_the_scan(
    make: Any, session: Session, volume: Volume, tmp_path: Any
) -> None:
    from medssl.io import read_volume

    controller, _ = make()
    session.volume = volume
    stroke(session, (1, 2, 3), 2)
    controller.export("scribbles", str(tmp_path / "mask.nii.gz"))
    back = read_volume(tmp_path / "mask.nii.gz")
    assert back.geometry.matches(volume.geometry)
    np.testing.assert_array_equal(back.array, session.scribbles.array)
