"""Boxes and results in files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.io.tables import (
    detections_from_json,
    detections_to_json,
    read_boxes,
    read_json,
    write_boxes,
    write_json,
)
from medssl.volume.regions import Box

SOLID = [Box((1, 2, 3), (4, 6, 8), "lesion", 0.5), Box((0, 0, 0), (1, 1, 1), "cyst, small", None)]
FLAT = [Box((2, 3), (6, 8), "lesion"), Box((0, 0), (1, 1), "cyst")]


@pytest.mark.parametrize("boxes", [SOLID, FLAT, []], ids=["3D", "2D", "none"])
def test_boxes_survive_a_round_trip(tmp_path, boxes):
    write_boxes(boxes, tmp_path / "boxes.csv")
    assert read_boxes(tmp_path / "boxes.csv") == boxes


def test_the_header_is_that_of_the_contract(tmp_path):
    write_boxes(SOLID, tmp_path / "a.csv")
    write_boxes(FLAT, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_text().splitlines()[:2] == [
        "z0,y0,x0,z1,y1,x1,class,score",
        "1,2,3,4,6,8,lesion,0.5",
    ]
    assert (tmp_path / "b.csv").read_text().splitlines()[0] == "y0,x0,y1,x1,class"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y0,x0,y1,class\n", "column x1 is missing"),
        ("z0,y0,x0,z1,y1,x1\n", "column class is missing"),
        ("y0,x0,y1,x1,class\n0,0,5,5,a\n0,0,zero,5,a\n", "line 3"),
        ("y0,x0,y1,x1,class\n0,0,5,0,a\n", "line 2: a box ends after it begins"),
        ("y0,x0,y1,x1,class\n0,0\n", "line 2"),
        ("y0,x0,y1,x1,class\n0,0,5,5,a\n0,0,5,5, \n", "line 3: column class is empty"),
        ("", "column y0 is missing"),
    ],
)
def test_bad_tables_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_boxes(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_detections_state_outer_corners_as_lps_points(oblique):
    geometry = oblique().geometry
    values = json.loads(json.dumps(detections_to_json(SOLID, geometry)))

    assert values["boxes"][0]["voxel"] == [1, 2, 3, 4, 6, 8]
    assert values["boxes"][0]["class"] == "lesion"
    expected = geometry.to_world([[0.5, 1.5, 2.5], [3.5, 5.5, 7.5]])[:, ::-1]
    np.testing.assert_allclose(values["boxes"][0]["mm"], expected)
    assert detections_from_json(values) == SOLID


def test_json_is_complete_or_absent(tmp_path):
    path = tmp_path / "hits.json"
    write_json({"hits": [1]}, path)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json({"hits": [float("nan")]}, path)
    assert read_json(path) == {"hits": [1]}
    assert [file.name for file in tmp_path.iterdir()] == ["hits.json"]


def test_what_is_no_json_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("{")
    for name in ("a.json", "absent.json"):
        with pytest.raises(InputError, match=f"{name}: cannot be read as JSON"):
            read_json(tmp_path / name)
