from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medssl.data.box_patches import IGNORED, BoxPatchLoader
from medssl.data.boxed import BoxedVolume, box_working_grid, boxes_of_mask, class_names, read_boxed
from medssl.data.table import Row
from medssl.errors import InputError
from medssl.io import write_volume
from medssl.io.tables import write_boxes
from medssl.volume import Geometry, Volume
from medssl.volume.regions import Box


def test_boxes_of_components_and_of_instances():
    mask = np.zeros((12, 10), np.uint8)
    mask[1:3, 1:4] = 1
    mask[3, 4] = 1  # touches by a corner
    mask[8:10, 2:4] = 1
    mask[6, 8] = 2
    boxes = boxes_of_mask(mask, names={1: "tumour"})
    assert [(box.start, box.stop, box.label) for box in boxes] == [
        ((1, 1), (4, 5), "tumour"),
        ((8, 2), (10, 4), "tumour"),
        ((6, 8), (7, 9), "class 2"),
    ]
    assert class_names(boxes) == ("class 2", "tumour")
    assert len(boxes_of_mask(mask, smallest=2)) == 2
    instances = boxes_of_mask(mask, "instances")
    assert [(box.start, box.stop, box.label) for box in instances] == [
        ((1, 1), (10, 5), "object"),
        ((6, 8), (7, 9), "object"),
    ]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_boxes_keep_their_place_on_the_working_grid(spatial_dims):
    shape, spacing = (20, 30, 40)[:spatial_dims], (5.0, 1.0, 1.0)[:spatial_dims]
    start, stop = (4, 6, 8)[:spatial_dims], (9, 12, 16)[:spatial_dims]
    array = np.zeros(shape, np.float32)
    array[tuple(map(slice, start, stop))] = 1000
    volume = Volume(array[None], Geometry.from_arrays(shape, spacing), "MR")
    boxed = box_working_grid(
        Row(Path("x")), volume, [Box(start, stop, "a")], ("a",), spacing_range=(0.5, 1.25)
    )
    assert boxed.grid.spacing[0] < 1.3
    low, high = boxed.boxes[0, :spatial_dims], boxed.boxes[0, spatial_dims:]
    place = np.argwhere(boxed.image[0] > 0.5)
    np.testing.assert_allclose(place.min(axis=0), low, atol=1.01)
    np.testing.assert_allclose(place.max(axis=0) + 1, high, atol=1.01)
    ratio = np.asarray(boxed.grid.shape) / shape
    np.testing.assert_allclose(low, np.asarray(start) * ratio, rtol=1e-6)


def line(boxes: list[list[float]], classes: list[int], length: int = 100) -> BoxedVolume:
    shape = (length, 20)
    image = np.arange(length, dtype=np.float16)[None, :, None].repeat(20, 2) / length
    return BoxedVolume(
        Row(Path("x"), origin="t.csv:2"), Geometry.from_arrays(shape), image,
        np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(classes, np.int64),
    )  # fmt: skip


def test_patches_hold_a_centre_and_move_boxes_with_the_image():
    volumes = [line([[40, 2, 50, 8], [54, 10, 60, 16]], [0, 1]), line([], [])]
    loader = BoxPatchLoader(volumes, (16, 16), 4, foreground=1.0)
    seen = set()
    for step in range(8):
        batch = loader.batch(step)
        again = loader.batch(step)
        assert batch.targets is not None
        assert again.targets is not None
        assert (batch.image == again.image).all()
        boxes, classes = batch.targets["boxes"], batch.targets["classes"]
        assert boxes.shape[:2] == classes.shape
        for image, own, names in zip(batch.image, boxes, classes, strict=True):
            assert (names >= 0).any()
            first = round(float(image[0].max() * 100)) - 15  # rows count up
            for box, name in zip(own, names, strict=True):
                centre = (box[:2] + box[2:]) / 2
                inside = bool(((centre >= 0) & (centre < 16)).all())
                if name >= 0:
                    assert inside
                    assert float(box[0]) + first == (40, 54)[int(name)]
                seen.add(int(name))
                assert not (name == IGNORED and inside)
    assert {0, 1, IGNORED} <= seen


def test_background_patches_lie_anywhere_and_small_scans_are_padded():
    loader = BoxPatchLoader([line([[2, 2, 6, 6]], [0], length=12)], (16, 32), 2, foreground=0.0)
    batch = loader.batch(0)
    assert batch.image.shape == (2, 1, 16, 32)
    assert batch.targets is not None
    box = batch.targets["boxes"][0, 0]
    rows = batch.image[0, 0].amax(dim=1)
    assert float(box[0]) - 2 == int((rows > 0).nonzero()[0]) - 1, "row 0 of the scan is black"
    with pytest.raises(InputError, match="no scan has a box"):
        BoxPatchLoader([line([], [])], (16, 16), 2)


def test_bad_rows_are_one_line(tmp_path):
    volume = Volume(np.zeros((1, 8, 9), np.uint8), Geometry.from_arrays((8, 9)), "MR")
    write_volume(volume, tmp_path / "a.mha")
    row = Row(tmp_path / "a.mha", origin="t.csv:2")
    for boxes, match in (
        (None, "needs the column boxes"),
        ([Box((0, 0, 0), (1, 1, 1), "a")], "3 dimensions, a.mha has 2"),
        ([Box((0, 0), (2, 10), "a")], "leaves the image"),
    ):
        path = tmp_path / "b.csv"
        if boxes is not None:
            write_boxes(boxes, path)
            row = Row(row.image, boxes=path, origin="t.csv:2")
        with pytest.raises(InputError, match=match) as caught:
            read_boxed(row)
        assert "\n" not in str(caught.value)
    write_boxes([Box((1, 2), (3, 4))], tmp_path / "b.csv")
    assert read_boxed(row)[1] == [Box((1, 2), (3, 4), "object")]
    write_boxes([], tmp_path / "b.csv", 2)
    assert read_boxed(row)[1] == [], "a scan without a finding is good training data"
