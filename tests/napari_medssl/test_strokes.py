"""Every way of painting gives one edit with the values before and after."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.store.edits import Edit
from napari_medssl.strokes import StrokeRecorder

napari_layers = pytest.importorskip("napari.layers")


@pytest.fixture
def painted() -> tuple:
    layer = napari_layers.Labels(np.zeros((4, 20, 20), np.uint8))
    layer.brush_size = 3
    edits: list[Edit] = []
    return layer, StrokeRecorder(layer, edits.append), edits


def replayed(edits: list[Edit], shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for edit in edits:
        np.testing.assert_array_equal(mask[edit.box], edit.before)
        edit.apply(mask)
    return mask


def test_a_drag_of_the_brush_is_one_edit(painted: tuple) -> None:
    layer, _, edits = painted
    with layer.block_history():  # what napari does between press and release
        layer.paint((1, 5, 5), 2)
        layer.paint((1, 5, 9), 2)
    assert len(edits) == 1
    assert edits[0].start == (1, 4, 4)
    assert edits[0].before.shape == (1, 3, 7)
    np.testing.assert_array_equal(replayed(edits, layer.data.shape), layer.data)


@pytest.mark.parametrize("way", ["paint", "fill", "setitem", "polygon", "erase"])
def test_replaying_the_edits_gives_the_layer(painted: tuple, way: str) -> None:
    layer, _, edits = painted
    layer.paint((2, 10, 10), 1)
    if way == "paint":
        layer.paint((2, 10, 11), 3)
    elif way == "fill":
        layer.fill((2, 0, 0), 4)
    elif way == "setitem":
        layer.data_setitem((np.array([0, 3]), np.array([1, 19]), np.array([2, 0])), 5)
    elif way == "polygon":
        layer.paint_polygon([(2, 3, 3), (2, 3, 12), (2, 12, 12)], 6)
    else:
        layer.paint((2, 10, 10), 0)
    assert len(edits) == 2
    np.testing.assert_array_equal(replayed(edits, layer.data.shape), layer.data)


def test_painting_what_is_there_already_is_no_edit(painted: tuple) -> None:
    layer, _, edits = painted
    layer.paint((1, 5, 5), 2)
    layer.paint((1, 5, 5), 2)
    assert len(edits) == 1


def test_sync_finds_silent_changes(painted: tuple) -> None:
    layer, recorder, edits = painted
    layer.data[3, 7, 2] = 9
    recorder.sync()
    recorder.sync()
    assert [(edit.start, int(edit.after[0, 0, 0])) for edit in edits] == [((3, 7, 2), 9)]


@pytest.mark.parametrize("way", ["paint", "fill", "erase"])
@pytest.mark.parametrize("place", [(0, 7, 2), (2, 11, 11), (2, 10, 10)])
def test_what_other_code_wrote_is_an_edit_of_its_own_before_the_stroke(
    painted: tuple, way: str, place: tuple[int, ...]
) -> None:
    layer, recorder, edits = painted
    layer.paint((2, 10, 10), 1)
    first = layer.data.copy()
    layer.data[place] = 9
    written = layer.data.copy()
    if way == "fill":
        layer.fill((2, 0, 0), 4)
    else:
        layer.paint((2, 10, 10), 3 if way == "paint" else 0)
    recorder.sync()
    np.testing.assert_array_equal(replayed(edits, layer.data.shape), layer.data)
    if place == (0, 7, 2):  # apart from the stroke: undo takes back one after the other
        assert [edit.class_id for edit in edits] == [1, 0, layer.selected_label]
        mask = layer.data.copy()
        edits[2].inverse().apply(mask)
        np.testing.assert_array_equal(mask, written)
        edits[1].inverse().apply(mask)
        np.testing.assert_array_equal(mask, first)


def test_an_array_in_place_of_the_layers_is_copied_into_it(painted: tuple) -> None:
    layer, _, edits = painted
    shared = layer.data
    other = np.zeros((4, 20, 20), np.int64)
    other[1, 2, 3] = 5
    layer.data = other
    assert layer.data is shared
    assert shared[1, 2, 3] == 5
    assert [(edit.start, edit.after.max()) for edit in edits] == [((1, 2, 3), 5)]
    layer.paint((2, 10, 10), 2)
    np.testing.assert_array_equal(replayed(edits, shared.shape), shared)


@pytest.mark.parametrize("other", [np.zeros((4, 20, 21), np.uint8), np.full((4, 20, 20), 300)])
def test_an_array_that_does_not_fit_is_refused(painted: tuple, other: np.ndarray) -> None:
    layer, _, edits = painted
    shared = layer.data
    with pytest.raises(InputError, match="classes 0 to 255"):
        layer.data = other
    assert layer.data is shared
    assert shared.sum() == 0
    assert edits == []


def test_close_records_what_other_code_wrote(painted: tuple) -> None:
    layer, recorder, edits = painted
    layer.data[3, 7, 2] = 9
    recorder.close()
    assert [edit.start for edit in edits] == [(3, 7, 2)]


def test_shown_edits_are_not_recorded_again(painted: tuple) -> None:
    layer, recorder, edits = painted
    ones = np.ones((1, 2, 2), np.uint8)
    recorder.show(Edit((0, 3, 3), ones * 0, ones))
    assert layer.data.sum() == 4
    recorder.sync()
    assert edits == []


def test_an_unknown_kind_of_event_is_found_by_comparison(painted: tuple) -> None:
    layer, _, edits = painted
    layer.data[1, 1, 1] = 7
    layer.events.paint(value=[{"from": "a later napari"}])
    assert [edit.start for edit in edits] == [(1, 1, 1)]


def test_close_stops_listening(painted: tuple) -> None:
    layer, recorder, edits = painted
    recorder.close()
    layer.paint((1, 5, 5), 2)
    assert edits == []
