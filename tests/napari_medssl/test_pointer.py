"""Clicks into the image."""

from __future__ import annotations

from typing import Any

import pytest

from medssl.volume import Volume
from napari_medssl.pointer import IN_SLICES
from napari_medssl.scene import Scene
from napari_medssl.session import Pick, Session

components = pytest.importorskip("napari.components")


@pytest.fixture
def scene(session: Session):
    scene = Scene(components.ViewerModel(), session)
    yield scene
    scene.close()


def test_a_click_is_a_voxel_while_picking(scene: Scene, press: Any, volume: Volume) -> None:
    session, picked = scene.session, []
    session.picked.connect(lambda voxel, picking: picked.append((voxel, picking)))
    session.volume = volume
    world = tuple(volume.geometry.to_world((4, 11, 30)))
    press(scene.viewer, world)
    assert picked == []
    session.picking = Pick.QUERY
    press(scene.viewer, world, drag=20)
    assert picked == []
    press(scene.viewer, world)
    press(scene.viewer, tuple(volume.geometry.to_world((4, 400, 30))))  # outside the scan
    assert picked == [((4, 11, 30), Pick.QUERY)]


def test_a_click_into_the_volume_view_has_no_depth_and_picks_nothing(
    scene: Scene, press: Any, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, picked, said = scene.session, [], []
    session.picked.connect(lambda voxel, picking: picked.append(voxel))
    monkeypatch.setattr("napari_medssl.pointer.show_info", said.append)
    session.volume, session.picking = volume, Pick.QUERY
    scene.viewer.dims.ndisplay = 3
    press(scene.viewer, tuple(volume.geometry.to_world((4, 11, 30))))
    assert (picked, said) == ([], [IN_SLICES])
    scene.viewer.dims.ndisplay = 2
    press(scene.viewer, tuple(volume.geometry.to_world((4, 11, 30))))
    assert (picked, said) == ([(4, 11, 30)], [IN_SLICES])


def test_an_image_that_was_removed_comes_back_to_be_picked_in(
    scene: Scene, press: Any, volume: Volume
) -> None:
    session, picked = scene.session, []
    session.picked.connect(lambda voxel, picking: picked.append(voxel))
    session.volume, session.window = volume, (10.0, 20.0)
    scene.viewer.layers.remove(scene.find("image"))
    session.picking = Pick.QUERY
    assert scene.find("image").contrast_limits == [10, 20]
    press(scene.viewer, tuple(volume.geometry.to_world((4, 11, 30))))
    assert picked == [(4, 11, 30)]
