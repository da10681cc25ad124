"""Boxes are outlined in every slice that they go through."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.volume import Geometry, Volume
from medssl.volume.regions import Box
from napari_medssl import boxes

napari_layers = pytest.importorskip("napari.layers")

LESION = Box((2, 5, 7), (4, 8, 11), "liver lesion", 0.75)
OTHER = Box((6, 1, 1), (7, 3, 2), "lung lesion", 0.5)


def layer_of(volume: Volume, found: list[Box]) -> object:
    data, options, kind = boxes.boxes_layer(volume, found, "boxes", "detections")
    assert kind == "shapes"
    return napari_layers.Shapes(data, **options)


def test_a_box_has_one_rectangle_per_slice_and_axis() -> None:
    rectangles = np.stack(boxes.outlines(LESION))
    assert rectangles.shape == (2 + 3 + 4, 4, 3)
    for axis in range(3):
        flat = rectangles[(rectangles[:, :, axis] == rectangles[:, :1, axis]).all(axis=1)]
        assert sorted(flat[:, 0, axis]) == list(range(LESION.start[axis], LESION.stop[axis]))
        others = [other for other in range(3) if other != axis]
        for corner in flat[:, :, others]:
            np.testing.assert_array_equal(corner.min(axis=0) + 0.5, np.take(LESION.start, others))
            np.testing.assert_array_equal(corner.max(axis=0) + 0.5, np.take(LESION.stop, others))


def test_a_box_in_a_picture_is_one_rectangle() -> None:
    (rectangle,) = boxes.outlines(Box((3, 4), (5, 9)))
    assert sorted(map(tuple, rectangle)) == [(2.5, 3.5), (2.5, 8.5), (4.5, 3.5), (4.5, 8.5)]


def test_a_layer_lies_on_the_scan_and_says_class_and_score(volume: Volume) -> None:
    layer = layer_of(volume, [LESION, OTHER])
    np.testing.assert_allclose(layer.scale, volume.geometry.spacing)
    np.testing.assert_allclose(layer.translate, volume.geometry.origin)
    assert len(layer.data) == len(layer.features) == 9 + 4
    assert set(layer.features.itertuples(index=False, name=None)) == {
        (1, "liver lesion", 0.75),
        (2, "lung lesion", 0.5),
    }
    colours = np.unique(layer.edge_color, axis=0)
    assert len(colours) == 2
    np.testing.assert_allclose(sorted(colours[:, 3]), [0.3 + 0.7 * 0.5, 0.3 + 0.7 * 0.75])
    assert (layer.face_color[:, 3] == 0).all()


def test_no_box_is_a_layer_too(volume: Volume) -> None:
    layer = layer_of(volume, [])
    assert (len(layer.data), layer.ndim) == (0, 3)
    picture = Volume(np.zeros((1, 8, 9)), Geometry.from_arrays((8, 9)))
    assert layer_of(picture, []).ndim == 2


def test_the_weakest_boxes_go_where_there_are_too_many(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxes, "MOST_OUTLINES", 12)
    assert set(layer_of(volume, [LESION, OTHER]).features["box"]) == {1}
