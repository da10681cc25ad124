"""Scribbles as a person would make them: short strokes in slices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medssl.store.edits import Edit

RADIUS_VOX = 2
AUTHOR = "demo"


def strokes(
    sure: NDArray[np.uint8], count: int, rng: np.random.Generator, author: str = AUTHOR
) -> Iterator[Edit]:
    """Small discs in slices along the first axis, each inside one class.

    Args:
        sure: (*S) label value where a stroke may go, 0 elsewhere.
        count: strokes per class.
        rng: draws the places.
        author: who is said to have made them.

    Yields:
        Each stroke, to be applied in this order.
    """
    labels = np.zeros_like(sure)
    grid = np.indices((2 * RADIUS_VOX + 1,) * 2) - RADIUS_VOX
    disc = (grid**2).sum(0) <= RADIUS_VOX**2
    for value in np.unique(sure[sure > 0]):
        places = np.flatnonzero(sure == value)
        for place in rng.choice(places, min(count, len(places)), replace=False):
            voxel = [int(i) for i in np.unravel_index(place, sure.shape)]
            start = [max(0, i - RADIUS_VOX) for i in voxel[-2:]]
            stop = [min(n, i + RADIUS_VOX + 1) for i, n in zip(voxel[-2:], sure.shape[-2:], strict=True)]
            box = (*(slice(i, i + 1) for i in voxel[:-2]), *map(slice, start, stop))
            cut = tuple(
                slice(a - i + RADIUS_VOX, b - i + RADIUS_VOX)
                for a, b, i in zip(start, stop, voxel[-2:], strict=True)
            )
            before = labels[box].copy()
            painted = disc[cut] & (sure[box] == value)
            labels[box][painted] = value
            corner = tuple(s.start for s in box)
            edit = Edit.between(before, labels[box], corner, class_id=int(value), author=author)
            if edit is not None:
                yield edit
