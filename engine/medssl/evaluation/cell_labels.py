"""The class that most voxels of a cell have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medssl.volume import Geometry
from medssl.volume.resample import axis_positions, resample_nearest


def majority_labels(label: NDArray[np.int16], geometry: Geometry, cells: Geometry) -> NDArray[np.int16]:
    """The most frequent class of each cell; ties go to the smaller class.

    A voxel counts for the cell that its centre lies in. A cell smaller than a voxel, which may hold no
    centre, takes the class of the nearest voxel.

    Args:
        label: (*S) class per voxel.
        geometry: grid of ``label``.
        cells: grid of the cells, same directions.

    Returns:
        (*cells.shape) classes.
    """
    along = [
        np.clip(np.floor(positions + 0.5), 0, size - 1).astype(np.intp)
        for positions, size in zip(axis_positions(cells, geometry), cells.shape, strict=True)
    ]
    cell_of = np.ravel_multi_index(tuple(np.ix_(*along)), cells.shape).reshape(-1)
    values, code = np.unique(label, return_inverse=True)
    counts = np.bincount(
        cell_of * len(values) + code.reshape(-1), minlength=int(np.prod(cells.shape)) * len(values)
    ).reshape(-1, len(values))
    majority: NDArray[np.int16] = values[counts.argmax(axis=1)].reshape(cells.shape).astype(np.int16)
    empty = counts.sum(axis=1).reshape(cells.shape) == 0
    if empty.any():
        majority[empty] = resample_nearest(label[None], geometry, cells)[0][empty]
    return majority
