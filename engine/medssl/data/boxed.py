"""A scan with its boxes on the encoder's working grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medssl.data.labelled import read_labelled, working_image
from medssl.data.scan import read_scan
from medssl.data.table import Row
from medssl.errors import InputError
from medssl.io.tables import read_boxes
from medssl.volume import Geometry, Volume
from medssl.volume.regions import Box

MaskKind = Literal["classes", "instances"]
"""What a value of a mask is where boxes are made from it: a class, or the number of one object."""

OBJECT = "object"
"""Class of boxes whose table or mask names none."""


@dataclass(frozen=True, eq=False)
class BoxedVolume:
    """One scan as the detection task sees it.

    Args:
        row: where it came from.
        grid: working grid of ``image`` and ``boxes``.
        image: (1, *S) float16, normalised to [0, 1].
        boxes: (N, 2 n) float32, starts and stops in working-grid voxels; voxel i spans [i, i + 1).
        classes: (N,) int64, index into the classes of the cohort.
    """

    row: Row
    grid: Geometry
    image: NDArray[np.float16]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]


def read_boxed(
    row: Row, masks: MaskKind = "classes", names: Mapping[int, str] | None = None, smallest: int = 1
) -> tuple[Volume, list[Box]]:
    """The scan of a row and its boxes on the scan's own grid, from the CSV, else from the mask.

    Args:
        row: with ``boxes`` or ``label``.
        masks: what a mask value is.
        names: class name of a mask value.
        smallest: voxels of the smallest component of a mask that becomes a box.

    Raises:
        InputError: neither boxes nor mask, other dimensions, or a box outside the image.
    """
    if row.boxes is None:
        if row.label is None:
            raise InputError(f"{row.origin}: detection needs the column boxes, or label to make them from")
        volume, mask = read_labelled(row)
        return volume, boxes_of_mask(mask, masks, names, smallest)
    volume = read_scan(row)
    boxes = read_boxes(row.boxes)
    shape = volume.geometry.shape
    for number, box in enumerate(boxes, start=1):
        if len(box.start) != len(shape):
            raise InputError(
                f"{row.origin}: {row.boxes.name} holds boxes of {len(box.start)} dimensions, "
                f"{row.image.name} has {len(shape)}"
            )
        if min(box.start) < 0 or any(stop > size for stop, size in zip(box.stop, shape, strict=True)):
            raise InputError(
                f"{row.origin}: box {number} of {row.boxes.name} ({box.start} to {box.stop}) leaves the "
                f"image of {shape} voxels; are its indices in array order (z, y, x)?"
            )
    return volume, [replace(box, label=box.label or OBJECT) for box in boxes]


def boxes_of_mask(
    mask: NDArray[np.integer],
    kind: MaskKind = "classes",
    names: Mapping[int, str] | None = None,
    smallest: int = 1,
) -> list[Box]:
    """A box around every object of a mask.

    Args:
        mask: (*S), 0 is background.
        kind: "classes": every connected component (corners touch) is an object of the class its value
            names; "instances": every value is one object.
        names: class name of a value, ``class <value>`` by default; for instances that of 1.
        smallest: voxels of the smallest object.
    """
    names = names or {}
    boxes: list[Box] = []
    if kind == "instances":
        parts = [(mask.astype(np.int64), names.get(1, OBJECT))]
    else:
        everywhere = np.ones((3,) * mask.ndim, bool)
        parts = [
            (ndimage.label(mask == value, structure=everywhere)[0], names.get(int(value), f"class {value}"))
            for value in np.unique(mask)
            if value != 0
        ]
    for objects, name in parts:
        counts = np.bincount(objects.ravel())
        for number, where in enumerate(ndimage.find_objects(objects), start=1):
            if where is not None and counts[number] >= smallest:
                start, stop = zip(*((part.start, part.stop) for part in where), strict=True)
                boxes.append(Box(start, stop, name))
    return boxes


def class_names(boxes: Iterable[Box]) -> tuple[str, ...]:
    """Names of the classes in alphabetic order: what channel k of a detector stands for."""
    return tuple(sorted({box.label for box in boxes}))


def box_array(boxes: Sequence[Box], spatial_dims: int) -> NDArray[np.float32]:
    """(N, 2 n) starts and stops."""
    values = [[*box.start, *box.stop] for box in boxes]
    return np.asarray(values, np.float32).reshape(len(boxes), 2 * spatial_dims)


def to_grid(boxes: NDArray[np.float32], source: Geometry, target: Geometry) -> NDArray[np.float32]:
    """Boxes (N, 2 n) from one grid to another that fills the same space."""
    ratio = np.asarray(target.shape) / np.asarray(source.shape)
    moved: NDArray[np.float32] = (boxes * np.concatenate([ratio, ratio])).astype(np.float32)
    return moved


def box_working_grid(
    row: Row,
    volume: Volume,
    boxes: Sequence[Box],
    names: Sequence[str],
    *,
    spacing_range: tuple[float, float],
    scratch: Path | None = None,
) -> BoxedVolume:
    """Normalise and resample as the encoder expects; boxes keep their place to a fraction of a voxel.

    Args:
        row: where the scan came from.
        volume: the scan; several channels are averaged.
        boxes: on the scan's own grid.
        names: of the classes; every box has one of them.
        spacing_range: of the encoder, mm.
        scratch: folder for memory-mapped arrays; None keeps them in memory.
    """
    image, grid = working_image(volume, spacing_range, scratch)
    array = to_grid(box_array(boxes, volume.spatial_dims), volume.geometry, grid)
    classes = np.asarray([list(names).index(box.label) for box in boxes], np.int64)
    return BoxedVolume(row, grid, image, array, classes)
