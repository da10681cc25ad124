"""From a dense feature map to the vectors that an index keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medssl.volume import Geometry, Volume
from medssl.volume.normalize import Normalizer
from medssl.volume.resample import interpolate, interpolation_matrices

POOLING = 2
"""Stride-4 cells per indexed cell and axis: the index has stride 8."""

MAX_CELLS = 50_000
"""Most indexed cells of one volume."""

_AIR = {"CT": 0.03}  # -874 HU: outside air stays out, lung stays in
_AIR_OTHERWISE = 0.08


@dataclass(frozen=True, eq=False)
class Cells:
    """Vectors of one volume with their places.

    Args:
        vectors: (N, D) float32, unit length.
        voxels: (N, n) int32, voxel of the volume nearest to the cell's centre, array order.
        mm: (N, n) float32, centre of the cell in LPS world coordinates [x, y, z].
        size_mm: longest edge of a cell.
    """

    vectors: NDArray[np.float32]
    voxels: NDArray[np.int32]
    mm: NDArray[np.float32]
    size_mm: float = 8.0


def pooled(features: Volume) -> Volume:
    """The map of means over ``POOLING`` cells per axis, unit length: (D, *S / POOLING) float32."""
    array, n = features.array, features.spatial_dims
    padding = [(0, -size % POOLING) for size in features.geometry.shape]
    shape = tuple(
        (size + extra) // POOLING for size, (_, extra) in zip(array.shape[1:], padding, strict=True)
    )
    split = tuple(part for size in shape for part in (size, POOLING))
    result = np.empty((len(array), *shape), np.float32)
    for channel, values in enumerate(array):  # one at a time: no float32 copy of the whole map
        full = np.pad(values.astype(np.float32), padding, mode="edge")
        result[channel] = full.reshape(split).mean(axis=tuple(range(1, 2 * n, 2)))
    result /= np.maximum(np.linalg.norm(result, axis=0), 1e-12)
    return Volume(result, features.geometry.cells((POOLING,) * n), features.modality, features.id)


def foreground(volume: Volume, cells: Geometry) -> NDArray[np.bool_]:
    """Which cells hold something other than air: (*cells.shape) bool.

    Mean normalised intensity of the cell above a threshold; holes that air or fluid leaves inside the
    body are filled.

    Args:
        volume: the scan.
        cells: grid of the cells, same directions.
    """
    normalizer = Normalizer.fit(volume.array, volume.modality)
    matrices = interpolation_matrices(volume.geometry, cells)
    mean = np.empty(cells.shape, np.float32)
    for low in range(0, cells.shape[0], 4):  # slab by slab: no float32 copy of the whole scan
        slab = interpolate(volume.array, (matrices[0][low : low + 4], *matrices[1:]))
        mean[low : low + 4] = normalizer(slab).mean(axis=0)
    mask = mean > _AIR.get(volume.modality, _AIR_OTHERWISE)
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(mask)
    if volume.spatial_dims == 3:  # airways open to the outside leave no hole in 3D but one in each slice
        filled |= np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
    return filled if filled.any() else np.ones(cells.shape, bool)


def index_cells(features: Volume, volume: Volume, seed: int = 0, limit: int = MAX_CELLS) -> Cells:
    """The foreground cells of a volume for an index.

    Args:
        features: dense feature map of ``volume``.
        volume: the scan; gives the foreground and the voxel indices.
        seed: of the draw where there are more than ``limit`` cells.
        limit: most cells to keep.
    """
    coarse = pooled(features)
    chosen = np.flatnonzero(foreground(volume, coarse.geometry))
    if chosen.size > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, limit, replace=False))
    position = np.stack(np.unravel_index(chosen, coarse.geometry.shape), axis=1)
    world = coarse.geometry.to_world(position)
    return Cells(
        vectors=np.ascontiguousarray(coarse.array.reshape(len(coarse.array), -1)[:, chosen].T),
        voxels=nearest_voxels(volume.geometry, world),
        mm=world[:, ::-1].astype(np.float32),
        size_mm=max(coarse.geometry.spacing),
    )


def nearest_voxels(geometry: Geometry, world: NDArray[Any]) -> NDArray[np.int32]:
    """The voxel of a grid nearest to each world position (N, n), array order in and out."""
    index = np.rint(geometry.to_index(world))
    return np.clip(index, 0, np.asarray(geometry.shape) - 1).astype(np.int32)
