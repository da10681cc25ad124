"""What a probe sees of a volume: features at cells, intensity at voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medssl.volume import Geometry, Volume
from medssl.volume.normalize import Normalizer
from medssl.volume.resample import axis_positions

SMOOTHING_VOX = 1.0
"""Standard deviation of the smoothed intensity, voxels."""

_MARGIN = 4  # voxels around a slab, where the Gaussian of 1 voxel has faded


class Scan:
    """A volume with its dense features, sampled at voxels.

    Args:
        volume: the scan; its first channel is used.
        features: dense map (D, *S') of the volume.
    """

    def __init__(self, volume: Volume, features: Volume) -> None:
        self.features = features
        self.geometry: Geometry = volume.geometry
        self._array = volume.array[0]
        self._normalizer = Normalizer.fit(volume.array, volume.modality)

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return self.geometry.ndim

    @property
    def width(self) -> int:
        """Inputs per voxel: D features and two intensities."""
        return int(self.features.array.shape[0]) + 2

    def sample(self, *index: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """The inputs of some voxels.

        Args:
            *index: one vector (N,) of indices per axis, as `np.nonzero` gives them.

        Returns:
            (N, D + 2) float32: features interpolated linearly, intensity, smoothed intensity.
        """
        positions = axis_positions(self.features.geometry, self.geometry)
        result = np.empty((len(index[0]), self.width), np.float32)
        result[:, :-2] = _interpolated(
            self.features.array, [p[i] for p, i in zip(positions, index, strict=True)]
        )
        if len(index[0]):
            slabs = self._smoothed_at(index)
            result[:, -2] = self._normalizer(self._array[index])
            result[:, -1] = slabs
        return result

    def intensities(self, rows: slice) -> NDArray[np.float32]:
        """Intensity and smoothed intensity of a slab along the first axis: (2, rows, ...) float32."""
        low, high = max(0, rows.start - _MARGIN), min(len(self._array), rows.stop + _MARGIN)
        inner = slice(rows.start - low, rows.stop - low)
        raw = self._normalizer(self._array[low:high])
        return np.stack([raw[inner], ndimage.gaussian_filter(raw, SMOOTHING_VOX, truncate=3.0)[inner]])

    def _smoothed_at(self, index: tuple[NDArray[np.integer[Any]], ...]) -> NDArray[np.float32]:
        """Smoothed intensity at voxels: the Gaussian summed over the neighbours of each voxel."""
        radius = int(3.0 * SMOOTHING_VOX + 0.5)
        offsets = np.arange(-radius, radius + 1)
        kernel = np.exp(-0.5 * (offsets / SMOOTHING_VOX) ** 2)
        kernel /= kernel.sum()
        neighbours = [
            _mirrored(i[:, None] + offsets, size) for i, size in zip(index, self._array.shape, strict=True)
        ]
        n = len(neighbours)
        grids = [
            x.reshape(len(x), *(-1 if a == b else 1 for b in range(n))) for a, x in enumerate(neighbours)
        ]
        result = np.empty(len(index[0]), np.float32)
        for low in range(0, len(result), 20_000):
            part = slice(low, low + 20_000)
            values = self._normalizer(self._array[tuple(grid[part] for grid in grids)])
            for _ in range(n):
                values = values @ kernel.astype(np.float32)
            result[part] = values
        return result


def _mirrored(index: NDArray[np.integer[Any]], size: int) -> NDArray[np.int64]:
    """Indices reflected at the border, the edge voxel repeated: the "reflect" of scipy.ndimage."""
    period = np.mod(index, 2 * size)
    result: NDArray[np.int64] = np.where(period >= size, 2 * size - 1 - period, period)
    return result


def _interpolated(array: NDArray[Any], positions: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Linear interpolation of a map (D, *S) at points given per axis (N,): (N, D); edge values outside."""
    shape = array.shape[1:]
    lows, fractions = [], []
    for position, size in zip(positions, shape, strict=True):
        inside = np.clip(position, 0, size - 1)
        low = np.minimum(np.floor(inside).astype(np.int64), max(size - 2, 0))
        lows.append(low)
        fractions.append((inside - low).astype(np.float32))
    result = np.zeros((len(positions[0]), len(array)), np.float32)
    for corner in np.ndindex(*(2,) * len(shape)):
        weight = np.ones(len(result), np.float32)
        index = []
        for step, low, fraction, size in zip(corner, lows, fractions, shape, strict=True):
            weight = weight * (fraction if step else 1 - fraction)
            index.append(np.minimum(low + step, size - 1))
        result += weight[:, None] * array[(slice(None), *index)].T
    return result
