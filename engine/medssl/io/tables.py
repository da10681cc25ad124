"""Boxes and results as CSV and JSON: voxels in array order, mm as LPS [x, y, z]."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medssl.errors import InputError
from medssl.io.atomic import replacing
from medssl.volume import Geometry
from medssl.volume.regions import Box

_AXES = {2: ("y", "x"), 3: ("z", "y", "x")}


def write_boxes(boxes: Sequence[Box], path: Path, spatial_dims: int | None = None) -> None:
    """Write ``z0,y0,x0,z1,y1,x1,class[,score]`` (2D: without z), half-open voxel indices.

    The column ``score`` is there when at least one box has a score.

    Args:
        boxes: all 2D or all 3D.
        path: CSV file to make or to replace.
        spatial_dims: 2 or 3 where ``boxes`` is empty; otherwise taken from the boxes.
    """
    dims = len(boxes[0].start) if boxes else (spatial_dims or 3)
    with_score = any(box.score is not None for box in boxes)
    header = [f"{axis}{end}" for end in (0, 1) for axis in _AXES[dims]] + ["class"]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(header + ["score"] * with_score)
        for box in boxes:
            score = [] if not with_score else ["" if box.score is None else f"{box.score:.6g}"]
            writer.writerow([*box.start, *box.stop, box.label, *score])


def read_boxes(path: Path) -> list[Box]:
    """Read what `write_boxes` writes, in 2D or 3D; columns may stand in any order.

    The class is the name of every box, or empty for all of them.

    Raises:
        InputError: naming the file and the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            names = [(name or "").strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            axes = _AXES[3 if "z0" in names else 2]
            missing = [name for end in "01" for axis in axes if (name := axis + end) not in names]
            missing += [] if "class" in names else ["class"]
            if missing:
                raise InputError(
                    f"{path}: column {missing[0]} is missing: the header is z0,y0,x0,z1,y1,x1,class[,score] "
                    "(2D: y0,x0,y1,x1,class[,score])"
                )
            boxes = [(reader.line_num, _box(path, reader.line_num, row, axes)) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV of boxes: {error}") from error
    nameless = [line for line, box in boxes if not box.label]
    if 0 < len(nameless) < len(boxes):
        raise InputError(
            f"{path}: line {nameless[0]}: column class is empty, other boxes have one: name all or none"
        )
    return [box for _, box in boxes]


def _box(path: Path, line: int, row: Mapping[str, str | None], axes: Sequence[str]) -> Box:
    try:
        start = tuple(int(row[f"{axis}0"] or "") for axis in axes)
        stop = tuple(int(row[f"{axis}1"] or "") for axis in axes)
        score = (row.get("score") or "").strip()
        return Box(start, stop, (row["class"] or "").strip(), float(score) if score else None)
    except ValueError as error:
        raise InputError(
            f"{path}: line {line}: {error}: write whole voxel indices, each end above its start"
        ) from error


def detections_to_json(
    boxes: Sequence[Box], geometry: Geometry, *, model: str = "", note: str = ""
) -> dict[str, Any]:
    """The content of ``detections.json``: voxels, and LPS mm [x, y, z] of two opposite outer corners.

    Args:
        boxes: of one scan.
        geometry: grid of the scan.
        model: weights that found them.
        note: what must be known about the model.
    """
    return {
        **({"model": model} if model else {}),
        **({"note": note} if note else {}),
        "boxes": [
            {
                "voxel": [*box.start, *box.stop],
                "mm": [[float(value) for value in corner[::-1]] for corner in box.corners(geometry)],
                "score": box.score,
                "class": box.label,
            }
            for box in boxes
        ],
    }


def detections_from_json(values: Mapping[str, Any]) -> list[Box]:
    """The boxes of `detections_to_json`."""
    boxes = []
    for entry in values["boxes"]:
        voxel = [int(index) for index in entry["voxel"]]
        half = len(voxel) // 2
        boxes.append(Box(tuple(voxel[:half]), tuple(voxel[half:]), str(entry["class"]), entry.get("score")))
    return boxes


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write plain values, for example ``hits.json``; the file is complete or absent."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Plain values from a JSON file.

    Raises:
        InputError: absent, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
