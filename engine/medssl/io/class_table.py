"""What a mask holds, a line per class: voxels, size, place."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from medssl.io.atomic import replacing
from medssl.io.axes import lps_point
from medssl.volume import Volume

_AXES = {2: "yx", 3: "zyx"}


@dataclass(frozen=True)
class ClassRow:
    """One class of a mask.

    Args:
        value: mask value, not 0.
        name: of the class.
        voxels: how many.
        size: of all of them in ``unit``; None where the mask has no physical size.
        unit: "ml" in 3D, "mm2" in 2D.
        centre: LPS mm [x, y, z] of the centre of mass.
        start: first voxel of the bounding box, array order.
        stop: one past its last voxel.
    """

    value: int
    name: str
    voxels: int
    size: float | None
    unit: str
    centre: tuple[float, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def measure_classes(mask: Volume, names: Mapping[int, str]) -> tuple[ClassRow, ...]:
    """Every class but 0, ascending.

    Args:
        mask: (1, *S) whole numbers from 0.
        names: of the values; others are called "class V".
    """
    labels, geometry = mask.array[0], mask.geometry
    voxel = float(np.prod(geometry.spacing)) / (1000.0 if geometry.ndim == 3 else 1.0)
    rows = []
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        where = labels[box] == value
        count = int(where.sum())
        start = tuple(int(part.start) for part in box)
        centre = np.asarray(ndimage.center_of_mass(where)) + start
        rows.append(
            ClassRow(
                value=value,
                name=names.get(value, f"class {value}"),
                voxels=count,
                size=count * voxel if geometry.has_spacing else None,
                unit="ml" if geometry.ndim == 3 else "mm2",
                centre=tuple(lps_point(geometry, centre)),
                start=start,
                stop=tuple(int(part.stop) for part in box),
            )
        )
    return tuple(rows)


def write_class_table(rows: Sequence[ClassRow], path: Path) -> None:
    """Write ``class,name,voxels,ml,x_mm,y_mm,z_mm,z0,y0,x0,z1,y1,x1`` (2D: mm2 and no z).

    Args:
        rows: from `measure_classes`, all 2D or all 3D.
        path: CSV file to make or to replace.
    """
    dims = len(rows[0].start) if rows else 3
    unit = rows[0].unit if rows else "ml"
    place = [f"{axis}_mm" for axis in reversed(_AXES[dims])]
    header = ["class", "name", "voxels", unit, *place, *(axis + end for end in "01" for axis in _AXES[dims])]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(header)
        for row in rows:
            size = "" if row.size is None else f"{row.size:.6g}"
            centre = [f"{value:.3f}" for value in row.centre]
            writer.writerow([row.value, row.name, row.voxels, size, *centre, *row.start, *row.stop])
