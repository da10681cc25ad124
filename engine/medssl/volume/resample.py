"""From one grid to another that runs along the same directions, whole or part by part."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.volume.geometry import Geometry
from medssl.volume.threads import one_blas_thread

Floats = NDArray[np.float32]


def axis_positions(source: Geometry, target: Geometry) -> tuple[NDArray[np.float64], ...]:
    """Where the voxel centres of ``target`` lie in ``source``, as continuous indices along each axis.

    Args:
        source: grid that holds the values.
        target: grid that asks for them; same axes directions, any spacing, origin and shape.

    Returns:
        One vector (target size of the axis,) per axis.

    Raises:
        ValueError: the two grids do not run along the same directions.
    """
    if source.ndim != target.ndim or not np.allclose(source.direction, target.direction, atol=1e-3):
        raise ValueError("the two grids must run along the same directions")
    first = source.to_index(target.origin)
    step = np.asarray(target.spacing) / np.asarray(source.spacing)
    return tuple(o + s * np.arange(n) for o, s, n in zip(first, step, target.shape, strict=True))


def interpolation_matrices(source: Geometry, target: Geometry) -> tuple[Floats, ...]:
    """Linear interpolation from ``source`` to ``target`` as one matrix per axis.

    Positions outside the source take its edge value. Where the target is coarser, the kernel widens to
    the target's spacing, so that fine detail is averaged instead of skipped.

    Returns:
        Per axis (target size, source size); rows sum to 1.
    """
    widths = np.maximum(np.asarray(target.spacing) / np.asarray(source.spacing), 1.0)
    return tuple(
        _matrix(size, positions, float(width))
        for size, positions, width in zip(source.shape, axis_positions(source, target), widths, strict=True)
    )


def _matrix(size: int, positions: NDArray[np.float64], width: float) -> Floats:
    inside = np.clip(positions, 0, size - 1)
    weights = np.maximum(1 - np.abs(np.arange(size) - inside[:, None]) / width, 0)
    matrix: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def interpolate(array: NDArray[Any], matrices: tuple[Floats, ...]) -> Floats:
    """Apply one matrix per axis.

    Args:
        array: (C, *S) values.
        matrices: per axis (n, S_axis), as `interpolation_matrices` gives them, or rows of them.

    Returns:
        (C, n_1, ..., n_d) float32.
    """
    with one_blas_thread():
        return _interpolated(array, matrices)


def _interpolated(array: NDArray[Any], matrices: tuple[Floats, ...]) -> Floats:
    values = array
    for axis, matrix in enumerate(matrices, start=1):
        columns = np.flatnonzero(matrix.any(axis=0))  # the part of the source that these rows touch
        low, high = int(columns[0]), int(columns[-1]) + 1
        part = values[(slice(None),) * axis + (slice(low, high),)]
        used = matrix[:, low:high]
        if used.shape[0] == used.shape[1] and np.array_equal(used, np.eye(len(used), dtype=np.float32)):
            values = part
            continue
        flat = np.ascontiguousarray(part, dtype=np.float32)
        before, after = flat.shape[:axis], flat.shape[axis + 1 :]
        if after:
            flat = flat.reshape(int(np.prod(before)), high - low, int(np.prod(after)))
            values = np.matmul(used, flat).reshape(*before, len(used), *after)
        else:
            values = np.matmul(flat, used.T)
    return np.asarray(values, dtype=np.float32)


def resample_nearest(array: NDArray[Any], source: Geometry, target: Geometry) -> NDArray[Any]:
    """Values of the nearest source voxel, for labels; edge values outside.

    Args:
        array: (C, *S) on ``source``.
        source: grid of ``array``.
        target: grid asked for.

    Returns:
        (C, *target.shape), same dtype.
    """
    for axis, (size, positions) in enumerate(
        zip(source.shape, axis_positions(source, target), strict=True), start=1
    ):
        # a half goes up, so that a cell of s voxels owns exactly the voxels [s * i, s * (i + 1))
        index = np.clip(np.floor(positions + 0.5 + 1e-6), 0, size - 1).astype(np.intp)
        if not np.array_equal(index, np.arange(array.shape[axis])):
            array = np.take(array, index, axis=axis)
    return array
