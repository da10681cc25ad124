"""What deep features are held against: position and intensity, and hand-made filters with a forest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medssl.errors import MissingDependencyError
from medssl.volume import Volume
from medssl.volume.normalize import Normalizer

Floats = NDArray[np.float32]

SCALES_MM = (1.0, 2.0, 4.0, 8.0)


def intensity(volume: Volume) -> Floats:
    """(C, *S) voxels in [0, 1] as the encoders see them."""
    return Normalizer.fit(volume.array, volume.modality)(volume.array)


def intensity_and_position(volume: Volume) -> Floats:
    """(C + n, *S): normalised voxels, and the place along each axis from 0 (first) to 1 (last voxel)."""
    places = np.meshgrid(
        *(np.linspace(0, 1, size, dtype=np.float32) for size in volume.geometry.shape), indexing="ij"
    )
    return np.concatenate([intensity(volume), np.stack(places)])


def filter_bank(volume: Volume, scales_mm: Sequence[float] = SCALES_MM) -> Floats:
    """Hand-made features: the voxel, and Gaussian, gradient magnitude and Laplacian at every scale.

    Args:
        volume: (C, *S) scan.
        scales_mm: standard deviations of the Gaussian, mm; equal in space along every axis.

    Returns:
        (C * (1 + 3 * scales), *S) float32.
    """
    maps = []
    for channel in intensity(volume):
        maps.append(channel)
        for scale in scales_mm:
            sigma = [scale / size for size in volume.geometry.spacing]
            maps.append(ndimage.gaussian_filter(channel, sigma))
            maps.append(ndimage.gaussian_gradient_magnitude(channel, sigma))
            maps.append(ndimage.gaussian_laplace(channel, sigma))
    return np.stack(maps).astype(np.float32)


class Forest(Protocol):
    """A fitted classifier in the manner of scikit-learn."""

    def predict(self, features: Any) -> Any:
        """(N, D) -> (N,) classes."""
        ...


def fit_forest(features: Floats, labels: NDArray[np.integer], seed: int, trees: int = 100) -> Forest:
    """A random forest on labelled voxels.

    Args:
        features: (N, D).
        labels: (N,) classes.
        seed: of the bootstrap and the splits.
        trees: number of trees.

    Raises:
        MissingDependencyError: scikit-learn is absent.
    """
    try:
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415  optional, 2 s to import
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "evaluate", "the hand-made comparison") from error
    forest = RandomForestClassifier(trees, min_samples_leaf=2, n_jobs=_cores(), random_state=seed)
    fitted: Forest = forest.fit(features, labels)
    return fitted


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
