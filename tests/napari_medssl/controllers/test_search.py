"""Click, hits, jump, accept, cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from medssl.volume import Geometry, Volume
from napari_medssl.controllers.search import SearchController
from napari_medssl.session import Hit, Pick, Session, Source
from napari_medssl.widgets.search import SearchWidget


@pytest.fixture
def made(session: Session, engine: Any, runner: Any) -> tuple[SearchController, MagicMock, list[str]]:
    widget = MagicMock(spec=SearchWidget)
    widget.top.return_value = 4
    widget.scope.return_value = "volume"
    opened: list[str] = []
    return SearchController(session, widget, engine, runner, open_case=opened.append), widget, opened


def test_a_pick_searches_and_lists_ranked_hits(
    made: tuple, session: Session, engine: Any, volume: Volume
) -> None:
    _, widget, _ = made
    session.volume = volume
    session.picked.emit((1, 2, 3), Pick.CLUSTER)
    assert engine.calls == []
    session.picked.emit((1, 2, 3), Pick.QUERY)
    assert engine.calls == [("search", "case-1", (1, 2, 3), 4, None)]
    assert session.query == (1, 2, 3)
    found = widget.setHits.call_args.args[0]
    assert [row.score for row in found] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert [row.case for row in found] == [""] * 4


def test_a_hit_in_a_picture_has_no_place_in_the_patient(made: tuple, session: Session) -> None:
    _, widget, _ = made
    session.volume = Volume(np.zeros((1, 8, 9)), Geometry.from_arrays((8, 9), has_spacing=False), id="photo")
    session.hits = (Hit("photo", (3, 4), (4.0, 3.0), 0.9),)
    (row,) = widget.setHits.call_args.args[0]
    assert (row.voxel, row.mm) == ((3, 4), "")
    session.picked.emit((5, 6), Pick.QUERY)
    widget.setQuery.assert_called_with("Query: pixel 5, 6")


def test_jump_within_the_scan(made: tuple, session: Session, volume: Volume) -> None:
    controller, _, opened = made
    session.volume = volume
    session.picked.emit((1, 2, 3), Pick.QUERY)
    controller.jump(2)
    assert session.focus == (2, 3, 4)
    assert opened == []


def test_a_hit_in_another_scan_opens_it_and_keeps_the_list(
    made: tuple, session: Session, engine: Any, volume: Volume
) -> None:
    controller, widget, opened = made
    session.volume = volume
    controller.open_index("/cohort")
    widget.setCohort.assert_called_with("2 scans, 300 places")
    widget.setScope.assert_called_with("cohort")
    widget.scope.return_value = "cohort"
    session.picked.emit((1, 2, 3), Pick.QUERY)
    assert engine.calls[-1] == ("search", "case-1", (1, 2, 3), 4, Path("/cohort"))
    controller.jump(1)
    assert opened == ["/scans/case-2.nii.gz"]
    assert session.query == (1, 2, 3)
    session.focus = (1, 1, 1)  # the same voxel of the other scan
    told: list[Any] = []
    session.events.focus.connect(told.append)
    session.source = Source(path=Path("/scans/case-2.nii.gz"))
    other = Volume(volume.array, volume.geometry, id="case-2")
    session.volume = other
    assert told[-1] == (1, 1, 1)
    assert len(session.hits) == 4
    assert session.query is None  # it lies in the other scan
    widget.setQuery.assert_called_with("Query: voxel 1, 2, 3 of case-1")
    widget.setChosen.assert_called_with(1)
    assert [row.case for row in widget.setHits.call_args.args[0]] == ["case-1", "", "case-1", "case-1"]
    controller.search()  # from the voxel of the first scan still
    assert engine.calls[-1] == ("search", "case-1", (1, 2, 3), 4, Path("/cohort"))
    widget.scope.return_value = "volume"
    controller.search()
    assert engine.calls[-1] == ("search", "case-1", (1, 2, 3), 4, other)


def test_opening_another_scan_by_hand_clears_the_hits(made: tuple, session: Session, volume: Volume) -> None:
    session.volume = volume
    session.picked.emit((1, 2, 3), Pick.QUERY)
    session.volume = Volume(volume.array, volume.geometry, id="case-9")
    assert session.hits == ()
    assert session.query is None


def test_another_series_of_the_same_folder_is_another_scan(session: Session, volume: Volume) -> None:
    session.source = Source(path=Path("/scans/dicom"), series="1.2")
    session.volume = volume
    assert session.is_here(Hit("case-1", (1, 1, 1), (), 1.0, "/scans/dicom"))
    assert not session.is_here(Hit("case-1-bone", (1, 1, 1), (), 1.0, "/scans/dicom"))
    assert not session.is_here(Hit("case-1", (1, 1, 1), (), 1.0, "/scans/copy"))


def test_a_case_that_cannot_be_opened_is_no_goal_any_more(
    made: tuple, session: Session, volume: Volume
) -> None:
    controller, widget, _ = made
    session.volume = volume
    controller.open_index("/cohort")
    widget.scope.return_value = "cohort"
    session.picked.emit((1, 2, 3), Pick.QUERY)
    controller.jump(1)
    session.volume = Volume(volume.array, volume.geometry, id="case-9")  # the user opens something else
    assert session.hits == ()
    session.source = Source(path=Path("/scans/case-2.nii.gz"))
    session.volume = Volume(volume.array, volume.geometry, id="case-2")
    assert session.focus is None


def test_accept_sends_only_hits_of_this_scan(made: tuple, session: Session, volume: Volume) -> None:
    controller, widget, _ = made
    accepted: list[Any] = []
    session.accepted.connect(lambda voxels, class_id: accepted.append((voxels, class_id)))
    session.volume = volume
    controller.open_index("/cohort")
    widget.scope.return_value = "cohort"
    session.picked.emit((1, 2, 3), Pick.QUERY)
    controller.accept([0, 1, 2], 2)
    assert accepted == [([(0, 1, 2), (2, 3, 4)], 2)]


def test_building_an_index_opens_it(made: tuple, session: Session, engine: Any, tmp_path: Path) -> None:
    controller, _, _ = made
    controller.build_index("/scans/mine")
    index = tmp_path / "project" / "indices" / "mine"
    assert engine.calls == [("build_index", Path("/scans/mine"), index), ("open_index", index)]


def test_late_hits_of_an_older_query_are_dropped(session: Session, engine: Any, volume: Volume) -> None:
    waiting: list[Any] = []
    widget = MagicMock(spec=SearchWidget)
    widget.scope.return_value, widget.top.return_value = "volume", 4
    controller = SearchController(
        session,
        widget,
        engine,
        lambda steps, title, done, topic="", failed=None, stopped=None: waiting.append(done),
        open_case=lambda _: None,
    )
    session.volume = volume
    session.picked.emit((1, 2, 3), Pick.QUERY)
    session.picked.emit((5, 5, 5), Pick.QUERY)
    waiting[0](("old",))
    assert session.hits == ()
    controller.clear()
    assert session.picking == Pick.NONE
