"""Which voxels a person would label: random ones first, then the deepest of the largest errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Indices = NDArray[np.intp]

_DISTANCE_POINTS = 300_000


def sample_voxels(label: NDArray[np.integer], per_class: int, generator: np.random.Generator) -> Indices:
    """Random voxels of every class that is present, background included.

    Args:
        label: (*S) class per voxel.
        per_class: voxels per class; all of them where the class has fewer.
        generator: source of randomness.

    Returns:
        (N,) flat indices into ``label``, classes in increasing order.
    """
    flat = label.reshape(-1)
    order = np.argsort(flat, kind="stable")
    values, starts = np.unique(flat[order], return_index=True)
    ends = [*starts[1:], flat.size]
    picks = [
        generator.choice(order[start:end], min(per_class, end - start), replace=False)
        for start, end in zip(starts, ends, strict=True)
    ]
    return np.concatenate(picks) if len(values) else np.empty(0, np.intp)


def largest_errors(
    prediction: NDArray[np.integer],
    label: NDArray[np.integer],
    per_class: int,
    spacing: Sequence[float],
    labelled: Indices | None = None,
) -> Indices:
    """Where a robot user corrects next: inside the largest missed regions of every class.

    For each class the connected regions that belong to it but were predicted otherwise are visited from
    the largest on, in turns; in each the voxel is taken that lies deepest, i.e. farthest from the border
    of the region and from the voxels already taken in it.

    Args:
        prediction: (*S) predicted class per voxel.
        label: (*S) true class per voxel.
        per_class: voxels per class; fewer where the error has fewer voxels.
        spacing: mm per voxel along each axis.
        labelled: (M,) flat indices that were given before; they count as border, so that the next ones
            lie away from them.

    Returns:
        (N,) flat indices, all of them errors, none twice and none of ``labelled``.
    """
    wrong = prediction != label
    if labelled is not None:
        wrong.reshape(-1)[labelled] = False
    picks: list[int] = []
    for value in np.unique(label[wrong]):
        regions, count = ndimage.label(wrong & (label == value))
        sizes = np.bincount(regions.reshape(-1), minlength=count + 1)[1:]
        boxes = ndimage.find_objects(regions)
        largest = np.argsort(-sizes, kind="stable")[:per_class]
        turns = np.bincount(np.arange(per_class) % len(largest), minlength=len(largest))
        for region, turn in zip(largest, turns, strict=True):
            box = boxes[region]
            inside = _deepest(regions[box] == region + 1, min(int(turn), int(sizes[region])), spacing)
            corner = np.array([part.start for part in box])
            picks += np.ravel_multi_index(tuple((inside + corner).T), label.shape).tolist()
    return np.array(picks, dtype=np.intp)


def _deepest(region: NDArray[np.bool_], count: int, spacing: Sequence[float]) -> Indices:
    """(count, n) indices: the deepest voxel of ``region``, then the deepest away from those taken."""
    step = max(1, int(np.ceil((region.size / _DISTANCE_POINTS) ** (1 / region.ndim))))
    coarse = region[(slice(None, None, step),) * region.ndim]
    if coarse.sum() < count:
        step, coarse = 1, region
    size_mm = np.asarray(spacing, dtype=float) * step
    points = np.argwhere(coarse)
    depth = ndimage.distance_transform_edt(np.pad(coarse, 1), sampling=size_mm)
    score = depth[tuple((points + 1).T)]
    taken = []
    for _ in range(count):
        best = int(np.argmax(score))
        taken.append(points[best] * step)
        distance = np.linalg.norm((points - points[best]) * size_mm, axis=1)
        score = np.minimum(score, distance)
    return np.array(taken, dtype=np.intp)
