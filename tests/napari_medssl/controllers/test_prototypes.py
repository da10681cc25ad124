"""The map, its list, and one cluster alone."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from medssl.volume import Geometry, Volume
from napari_medssl.controllers.prototypes import PrototypesController, rows
from napari_medssl.engine import Clusters
from napari_medssl.session import Pick, Session
from napari_medssl.widgets.prototypes import PrototypesWidget


@pytest.fixture
def made(session: Session, engine: Any, runner: Any) -> tuple[PrototypesController, MagicMock]:
    widget = MagicMock(spec=PrototypesWidget)
    return PrototypesController(session, widget, engine, runner), widget


def test_compute_shows_the_map_and_the_list(
    made: tuple, session: Session, engine: Any, volume: Volume
) -> None:
    controller, widget = made
    controller.compute(3)
    assert engine.calls == []  # no scan, no work
    session.volume = volume
    widget.setEnabledFor.assert_called_with(True)
    controller.compute(3)
    assert engine.calls == [("prototypes", "case-1", 3)]
    assert session.prototypes is not None
    assert session.prototypes.geometry == volume.geometry
    assert {row.number for row in widget.setClusters.call_args.args[0]} == {1, 2, 3}


@pytest.mark.parametrize(("source", "word"), [("learned", "learned"), ("k-means", "own"), ("", "")])
def test_the_panel_says_where_the_clusters_come_from(
    source: str, word: str, made: tuple, session: Session, volume: Volume
) -> None:
    controller, widget = made
    session.volume = volume
    controller.show(Clusters(volume.with_array(np.ones(volume.geometry.shape, np.uint8)), {1: 9}, source))
    note = widget.setClusters.call_args.args[1]
    assert word in note
    assert bool(note) == bool(word)


def test_rows_are_sorted_and_in_millilitres() -> None:
    volume = Volume(np.zeros((1, 2, 2, 2), np.uint8), Geometry.from_arrays((2, 2, 2), (10, 10, 10)))
    found = rows(Clusters(volume, {0: 100, 1: 1, 2: 3}))
    assert [(row.number, row.share, row.millilitres) for row in found] == [(2, 0.75, 3.0), (1, 0.25, 1.0)]
    flat = Volume(np.zeros((1, 2, 2), np.uint8), Geometry.from_arrays((2, 2), has_spacing=False))
    assert rows(Clusters(flat, {1: 4}))[0].millilitres is None


def test_a_click_solos_a_cluster_and_a_second_one_shows_all(
    made: tuple, session: Session, volume: Volume
) -> None:
    controller, widget = made
    session.volume = volume
    controller.compute(3)
    assert session.prototypes is not None
    voxel = (0, 0, 2)
    cluster = int(session.prototypes.array[(0, *voxel)])
    session.picked.emit(voxel, Pick.QUERY)
    assert session.solo == 0
    session.picked.emit(voxel, Pick.CLUSTER)
    assert session.solo == cluster
    assert widget.setSolo.call_args.args[0] == cluster
    session.picked.emit(voxel, Pick.CLUSTER)
    assert session.solo == 0


def test_no_map_empties_the_list(made: tuple, session: Session, volume: Volume) -> None:
    controller, widget = made
    session.volume = volume
    controller.compute(3)
    session.solo = 2
    session.prototypes = None
    widget.setClusters.assert_called_with(())
    assert session.solo == 0


def test_an_answer_for_another_scan_is_dropped(session: Session, engine: Any, volume: Volume) -> None:
    waiting: list[Any] = []
    widget = MagicMock(spec=PrototypesWidget)
    controller = PrototypesController(
        session,
        widget,
        engine,
        lambda steps, title, done, topic="", failed=None, stopped=None: waiting.append(done),
    )
    session.volume = volume
    controller.compute(3)
    session.volume = Volume(volume.array, volume.geometry, id="other")
    waiting[0](Clusters(volume, {1: 1}))
    assert session.prototypes is None
