"""Layers follow the session, clicks and strokes go back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medssl.store.project import LabelClass
from medssl.volume import Geometry, Volume
from medssl.volume.regions import Box
from napari_medssl import layers
from napari_medssl.scene import Scene
from napari_medssl.session import Detections, Hit, Pick, Session, Source

components = pytest.importorskip("napari.components")
Layer = pytest.importorskip("napari.layers").Layer

CLASSES = (
    LabelClass(id=1, name="Background", colour=(9, 9, 9)),
    LabelClass(id=2, name="bone", colour=(255, 0, 0)),
)


@pytest.fixture
def scene(session: Session):
    scene = Scene(components.ViewerModel(), session)
    yield scene
    scene.close()


def mask_of(volume: Volume, value: int = 0) -> Volume:
    return volume.with_array(np.full(volume.geometry.shape, value, np.uint8))


def roles(scene: Scene) -> list[str]:
    return [layers.role_of(layer) for layer in scene.viewer.layers]


def test_layers_come_in_the_order_that_keeps_strokes_on_top(scene: Scene, volume: Volume) -> None:
    session = scene.session
    session.volume = volume
    session.scribbles = mask_of(volume)
    session.segmentation = mask_of(volume, 2)
    session.prototypes = mask_of(volume, 3)
    session.proposal = mask_of(volume, 1)
    session.query = (1, 2, 3)
    assert roles(scene) == ["image", "prototypes", "proposal", "segmentation", "scribbles", "hits"]
    for layer in scene.viewer.layers:
        np.testing.assert_allclose(layer.scale, volume.geometry.spacing)
        assert str(layer.units[0]) == "millimeter"


def test_only_one_coloured_map_is_visible(scene: Scene, volume: Volume) -> None:
    session = scene.session
    session.volume = volume
    session.prototypes = mask_of(volume, 3)
    session.proposal = mask_of(volume, 1)
    assert not scene.find("prototypes").visible
    assert scene.find("proposal").visible
    scene.find("proposal").visible = False
    session.proposal = mask_of(volume, 2)  # an update leaves the user's choice alone
    assert not scene.find("proposal").visible


def test_an_update_keeps_the_layer_and_its_opacity(scene: Scene, volume: Volume) -> None:
    session = scene.session
    session.volume = volume
    session.proposal = mask_of(volume, 1)
    layer = scene.find("proposal")
    layer.opacity = 0.2
    session.proposal = mask_of(volume, 2)
    assert scene.find("proposal") is layer
    assert layer.opacity == pytest.approx(0.2)
    assert int(layer.data.max()) == 2


def test_a_new_scan_takes_away_what_belonged_to_the_old_one(scene: Scene, volume: Volume) -> None:
    session = scene.session
    theirs = scene.viewer.add_image(np.zeros((4, 5, 6)), name="theirs")
    session.volume = volume
    session.proposal = mask_of(volume, 1)
    other = Volume(np.zeros((1, 3, 4, 5)), Geometry.from_arrays((3, 4, 5)), id="case-2")
    session.volume = other
    assert theirs in scene.viewer.layers
    assert roles(scene) == ["", "image"]
    assert scene.find("image").name == "case-2"


def test_a_users_layer_is_used_and_never_altered(scene: Scene, volume: Volume) -> None:
    session = scene.session
    data = volume.array[0]
    theirs = scene.viewer.add_image(data, scale=(3, 1, 1), name="theirs")
    before = np.array(theirs.affine)
    session.source = Source(layer="theirs")
    session.volume = layers.volume_of(theirs)
    assert len(scene.viewer.layers) == 1
    np.testing.assert_array_equal(np.array(theirs.affine), before)
    assert theirs.metadata == {}


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_an_oblique_foreign_layer_gets_a_view_in_its_own_frame(scene: Scene) -> None:
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, 2.0], [1.0, 0, 0], [0, 1.0, 0]]
    theirs = scene.viewer.add_image(np.zeros((4, 5, 6)), affine=affine, name="theirs")
    scene.session.source = Source(layer="theirs")
    scene.session.volume = layers.volume_of(theirs)
    view = scene.find("image")
    assert view is not None
    assert view is not theirs
    assert np.shares_memory(view.data, theirs.data)


def test_the_contrast_of_a_users_layer_stays(scene: Scene, volume: Volume) -> None:
    session = scene.session
    theirs = scene.viewer.add_image(volume.array[0], scale=(3, 1, 1), name="theirs", contrast_limits=(1, 2))
    session.source = Source(layer="theirs")
    session.volume = layers.volume_of(theirs)
    assert scene.find("image") is theirs
    session.window = (-160, 240)
    view = scene.find("image")
    assert (list(theirs.contrast_limits), list(view.contrast_limits)) == ([1, 2], [-160, 240])
    assert np.shares_memory(view.data, theirs.data)
    session.window = (0, 10)
    assert scene.find("image") is view
    assert list(view.contrast_limits) == [0, 10]
    scene.viewer.layers.remove(view)
    assert scene.find("image") is theirs


def test_a_scan_that_was_opened_elsewhere_gets_a_layer_of_our_own(scene: Scene, volume: Volume) -> None:
    data, options, _ = layers.image_layer(volume, contrast_limits=(100, 200))  # as File > Open leaves it
    theirs = scene.viewer.add_image(data, **options)
    scene.session.volume = volume
    scene.session.window = (-160, 240)
    assert scene.find("image") is not theirs
    assert list(theirs.contrast_limits) == [100, 200]


def test_a_renamed_layer_is_still_the_shown_one(scene: Scene, press: Any, volume: Volume) -> None:
    session, picked = scene.session, []
    session.picked.connect(lambda voxel, picking: picked.append(voxel))
    theirs = scene.viewer.add_image(volume.array[0], scale=(3, 1, 1), name="theirs")
    session.source = Source(layer="theirs")
    session.volume = layers.volume_of(theirs)
    theirs.name = "renamed"
    session.picking = Pick.QUERY
    press(scene.viewer, (4 * 3, 11, 30))
    assert picked == [(4, 11, 30)]
    session.volume = replace(session.volume, modality="CT")  # the same voxels: the same layer
    assert scene.find("image") is theirs
    assert len(scene.viewer.layers) == 1


def copy_of(scene: Scene, role: str) -> Any:
    """What napari's Duplicate makes: another layer with the same metadata."""
    data, state, kind = scene.find(role).as_layer_data_tuple()
    state["name"] += " copy"
    return scene.viewer.add_layer(Layer.create(data.copy(), state, kind))


def test_a_copy_of_our_layer_is_the_users(scene: Scene, volume: Volume) -> None:
    session, strokes = scene.session, []
    session.stroke.connect(strokes.append)
    session.volume = volume
    session.scribbles = mask_of(volume)
    session.proposal = mask_of(volume, 1)
    ours, proposal = scene.find("scribbles"), scene.find("proposal")
    copy, corrected = copy_of(scene, "scribbles"), copy_of(scene, "proposal")
    assert corrected.editable
    corrected.paint((1, 5, 5), 2)
    mine = corrected.data.copy()
    session.proposal = mask_of(volume, 2)
    np.testing.assert_array_equal(corrected.data, mine)
    assert int(proposal.data.min()) == 2
    session.tool = "paint"
    assert scene.viewer.layers.selection.active is ours
    ours.paint((2, 10, 10), 1)
    session.edited.emit(strokes[0].inverse())
    assert ours.data.sum() == 0
    copy.paint((2, 10, 10), 1)
    assert len(strokes) == 1
    scene.viewer.layers.remove(copy)
    ours.paint((3, 10, 10), 1)
    assert len(strokes) == 2
    session.volume = None
    assert list(scene.viewer.layers) == [corrected]


def test_the_proposal_is_closed_to_painting_and_says_what_to_do(scene: Scene, volume: Volume) -> None:
    session = scene.session
    session.volume = volume
    for value in (1, 2):
        session.proposal = mask_of(volume, value)
        layer = scene.find("proposal")
        layer.mode = "paint"
        assert (layer.editable, str(layer.mode)) == (False, "pan_zoom")
    scene.viewer.dims.ndisplay = 3
    scene.viewer.dims.ndisplay = 2
    assert not layer.editable
    assert "paint there where it is wrong" in layer.help


def test_scribbles_without_a_place_to_keep_them_are_not_shown(scene: Scene, volume: Volume) -> None:
    session = scene.session
    session.volume = volume
    session.scribbles = session.proposal = mask_of(volume)
    session.scribbles = session.proposal = None
    assert roles(scene) == ["image"]
    assert scene.recorder is None


def test_removed_scribbles_come_back_with_the_tool_and_with_an_edit(scene: Scene, volume: Volume) -> None:
    session, strokes = scene.session, []
    session.stroke.connect(strokes.append)
    session.volume = volume
    session.scribbles = mask_of(volume)
    scene.find("scribbles").paint((2, 10, 10), 1)
    scene.viewer.layers.remove(scene.find("scribbles"))
    session.tool = "paint"
    layer = scene.find("scribbles")
    assert (str(layer.mode), int(layer.data[2, 10, 10])) == ("paint", 1)
    scene.viewer.layers.remove(layer)
    session.edited.emit(strokes[0].inverse())
    assert scene.find("scribbles").data.sum() == session.scribbles.array.sum() == 0
    scene.find("scribbles").paint((2, 10, 10), 1)
    assert len(strokes) == 2


def test_the_tool_stays_for_the_next_scan(scene: Scene, volume: Volume) -> None:
    session = scene.session
    session.volume = volume
    session.scribbles = mask_of(volume)
    session.tool = "erase"
    session.scribbles = None
    session.volume = Volume(volume.array + 1, volume.geometry, id="case-2")
    session.scribbles = mask_of(volume)
    assert str(scene.find("scribbles").mode) == "erase"


def test_solo_and_opacity(scene: Scene, volume: Volume) -> None:
    session = scene.session
    session.volume = volume
    session.prototypes = mask_of(volume, 3)
    session.solo = 3
    session.prototype_opacity = 0.7
    layer = scene.find("prototypes")
    assert layer.show_selected_label
    assert layer.selected_label == 3
    assert layer.opacity == pytest.approx(0.7)
    session.solo = 0
    assert not layer.show_selected_label


def test_background_does_not_cover_the_scan_in_results(scene: Scene, volume: Volume) -> None:
    session = scene.session
    session.classes = CLASSES
    session.volume = volume
    session.scribbles = mask_of(volume)
    session.proposal = mask_of(volume, 1)
    colours = scene.find("proposal").colormap.color_dict
    assert colours[1][3] == 0
    np.testing.assert_allclose(colours[2], (1, 0, 0, 1))
    assert scene.find("scribbles").colormap.color_dict[1][3] == 1


def test_strokes_reach_the_session_and_edits_reach_the_layer(scene: Scene, volume: Volume) -> None:
    session, strokes = scene.session, []
    session.stroke.connect(strokes.append)
    session.volume = volume
    session.scribbles = mask_of(volume)
    layer = scene.find("scribbles")
    layer.paint((2, 10, 10), 1)
    assert len(strokes) == 1
    assert session.scribbles.array.sum() == strokes[0].after.sum()
    session.edited.emit(strokes[0].inverse())
    assert layer.data.sum() == 0
    assert len(strokes) == 1


def test_tool_brush_and_class_go_both_ways(scene: Scene, volume: Volume) -> None:
    session = scene.session
    session.classes = CLASSES
    session.volume = volume
    session.scribbles = mask_of(volume)
    layer = scene.find("scribbles")
    session.tool, session.brush, session.active_class = "paint", 7, 2
    assert (layer.mode, layer.brush_size, layer.selected_label) == ("paint", 7, 2)
    assert scene.viewer.layers.selection.active is layer
    layer.mode, layer.brush_size, layer.selected_label = "erase", 4, 1
    assert (session.tool, session.brush, session.active_class) == ("erase", 4, 1)


def test_a_class_that_is_in_no_list_is_not_taken(scene: Scene, volume: Volume) -> None:
    session = scene.session
    session.classes, session.volume, session.scribbles = CLASSES, volume, mask_of(volume)
    session.active_class = 2
    layer = scene.find("scribbles")
    layer.selected_label = 7
    assert (layer.selected_label, session.active_class) == (2, 2)
    layer.selected_label = 0  # rubs out
    assert (layer.selected_label, session.active_class) == (0, 2)


def test_focus_moves_the_slider_to_the_slice(scene: Scene, volume: Volume) -> None:
    scene.session.volume = volume
    scene.session.focus = (7, 3, 3)
    layer = scene.find("image")
    assert round(layer.world_to_data(scene.viewer.dims.point)[0]) == 7


def test_hits_of_this_scan_and_the_query_are_points(scene: Scene, volume: Volume) -> None:
    session = scene.session
    session.volume = volume
    session.query = (1, 2, 3)
    session.hits = (Hit("case-1", (2, 2, 2), (0, 0, 0), 0.9), Hit("case-2", (9, 9, 9), (0, 0, 0), 0.8, "/x"))
    layer = scene.find("hits")
    np.testing.assert_array_equal(layer.data, [[2, 2, 2], [1, 2, 3]])
    more = Hit("case-1", (4, 4, 4), (0, 0, 0), 0.7)
    session.hits = (*session.hits, more, replace(more, voxel=(5, 5, 5), score=0.6))
    assert scene.find("hits") is layer, "to make it anew takes napari a third of a second"
    np.testing.assert_array_equal(layer.data, [[2, 2, 2], [4, 4, 4], [5, 5, 5], [1, 2, 3]])
    assert [str(symbol) for symbol in layer.symbol] == ["disc"] * 3 + ["cross"]
    assert list(layer.features["score"]) == [0.9, 0.7, 0.6, 1.0]
    np.testing.assert_array_equal(layer.border_color[0], layer.border_color[2])
    assert (layer.border_color[0] != layer.border_color[3]).any()
    assert len(set(layer.size)) == 1
    session.hits = (more,)
    np.testing.assert_array_equal(layer.data, [[4, 4, 4], [1, 2, 3]])
    session.query, session.hits = None, ()
    assert scene.find("hits") is None


def test_boxes_are_called_what_they_are(scene: Scene, volume: Volume) -> None:
    session = scene.session
    session.volume = volume
    session.scribbles = mask_of(volume)
    note = "fine-tuned on a phantom; means nothing in patients"
    session.detections = Detections((Box((1, 2, 3), (3, 4, 5), "lesion", 0.9),), "some-weights", note)
    layer = scene.find("detections")
    assert layer.name == "MedSSL boxes (fine-tuned on a phantom)"
    assert len(layer.data) == 6
    assert roles(scene) == ["image", "detections", "scribbles"]
    session.detections = Detections((), "some-weights")
    assert scene.find("detections").name == "MedSSL boxes (some-weights)"
    assert len(scene.find("detections").data) == 0
    session.detections = None
    assert scene.find("detections") is None


def test_close_lets_go(session: Session, volume: Volume) -> None:
    viewer = components.ViewerModel()
    callbacks = list(viewer.mouse_drag_callbacks)
    scene = Scene(viewer, session)
    scene.close()
    session.volume = volume
    assert len(viewer.layers) == 0
    assert viewer.mouse_drag_callbacks == callbacks
