"""Boxes as a napari layer: outlines in every slice that a box goes through, along every axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medssl import layers
from napari_medssl.shelf import LayerTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medssl.volume import Volume
    from medssl.volume.regions import Box

MOST_OUTLINES = 3000
"""More rectangles make the viewer slow; the weakest boxes are left out then."""

_EDGE_MM = 0.8
_COLOURS = ((0.0, 0.9, 1.0), (1.0, 0.25, 0.9), (0.65, 1.0, 0.1), (1.0, 0.55, 0.1))
_FAINTEST = 0.3


def boxes_layer(volume: Volume, boxes: Sequence[Box], name: str, role: str) -> LayerTuple:
    """A napari layer tuple with the outlines of boxes: a colour per class, fainter where the score is lower.

    Each outline carries number, class and score of its box as features.

    Args:
        volume: the scan they lie in.
        boxes: best first, voxels of the scan.
        name: layer name.
        role: what the plugin uses the layer for.
    """
    shapes: list[NDArray[np.float64]] = []
    shown: list[int] = []
    for number, box in enumerate(boxes):
        own = outlines(box)
        if len(shapes) + len(own) > MOST_OUTLINES:
            break
        shapes += own
        shown += [number] * len(own)
    classes = sorted({box.label for box in boxes})
    scores = [1.0 if box.score is None else box.score for box in boxes]
    colours = [
        (*_COLOURS[classes.index(box.label) % len(_COLOURS)], _FAINTEST + (1 - _FAINTEST) * score)
        for box, score in zip(boxes, scores, strict=True)
    ]
    options: dict[str, Any] = {
        "features": {
            "box": [number + 1 for number in shown],
            "class": [boxes[number].label for number in shown],
            "score": [scores[number] for number in shown],
        },
        "edge_color": [colours[number] for number in shown] or "white",
        "face_color": "transparent",
        "edge_width": _EDGE_MM / min(volume.geometry.spacing),
    }
    # without a shape napari cannot know the number of axes
    count = {} if shapes else {"ndim": volume.spatial_dims}
    settings = layers.settings_of(volume, name, role, {**options, "shape_type": "rectangle", **count})
    return shapes, settings, "shapes"


def outlines(box: Box) -> list[NDArray[np.float64]]:
    """Rectangles (4, n) along the voxel edges of a box, one per slice and axis; one for a box in a picture.

    napari shows a shape where it lies in the plane of the slice, so each axis needs rectangles of its own.
    """
    low, high = np.asarray(box.start) - 0.5, np.asarray(box.stop) - 0.5
    n = len(low)
    found = []
    for axis in range(n) if n == 3 else [None]:
        first, second = (other for other in range(n) if other != axis)
        corners = np.tile(low, (4, 1))
        corners[1:3, first] = high[first]
        corners[2:4, second] = high[second]
        for index in range(box.start[axis], box.stop[axis]) if axis is not None else [None]:
            outline = corners.copy()
            if axis is not None:
                outline[:, axis] = index
            found.append(outline)
    return found
