"""The feature kinds that are compared, behind one face."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medssl.evaluation.baselines import (
    filter_bank,
    fit_forest,
    intensity_and_position,
)
from medssl.evaluation.cohort import Case, Cohort
from medssl.inference.embed import embed_volume
from medssl.inference.load import LoadedEncoder
from medssl.nets.dense import DENSE_STRIDE
from medssl.probing.linear import LinearProbe
from medssl.probing.samples import Scan
from medssl.store.features import FeatureSignature, FeatureStore, StoredFeatures
from medssl.store.project import content_hash
from medssl.volume import Geometry, Volume
from medssl.volume.resample import interpolate, interpolation_matrices
from medssl.volume.working_grid import working_geometry

Floats = NDArray[np.float32]
Predict = Callable[[Case], NDArray[np.integer]]

_FOREST_VOXELS = 500_000  # at once, so that the probabilities of all trees stay small


class Kind(Protocol):
    """Frozen features of a case: for a classifier at voxels, for an index in cells."""

    def fit(self, case: Case, voxels: NDArray[np.intp], seed: int) -> Predict:
        """See `medssl.evaluation.protocols.Segmenter`."""
        ...

    def features(self, case: Case) -> Volume:
        """(D, *S') features for an index, on the stride-4 grid of the working spacing."""
        ...


class DeepKind:
    """The product's own road: dense features, the linear probe with intensity, the index.

    Args:
        encoder: bundled weights or a random twin.
        store: keeps embeddings on disk.
    """

    def __init__(self, encoder: LoadedEncoder, store: FeatureStore) -> None:
        self._encoder = encoder
        self._store = store

    def fit(self, case: Case, voxels: NDArray[np.intp], seed: int) -> Predict:
        """The product's probe; ``seed`` is not used, the fit is convex."""
        return _fit_probe(case, voxels, self.features)

    def features(self, case: Case) -> Volume:
        """(64, *S') float16."""
        signature = FeatureSignature(content_hash(case.volume), self._encoder.signature)
        stored = self._store.load(signature)
        if stored is None:
            embedded = embed_volume(case.volume, self._encoder)
            stored = StoredFeatures({"features": embedded.array}, embedded.geometry)
            self._store.save(signature, stored)
        return Volume(stored.arrays["features"], stored.geometry, case.volume.modality, case.volume.id)


class RawKind:
    """Intensity and position: the product's probe with the place in the scan instead of features.

    Args:
        cohort: gives mean and deviation for the index, so that no channel outweighs the others.
        spacing_range: working spacing of the encoder that this is compared with, mm.
    """

    def __init__(self, cohort: Cohort, spacing_range: tuple[float, float]) -> None:
        self._spacing_range = spacing_range
        self._standardised = _standardiser(cohort, self._descriptor)

    def fit(self, case: Case, voxels: NDArray[np.intp], seed: int) -> Predict:
        """The product's probe; ``seed`` is not used."""
        return _fit_probe(case, voxels, self._position)

    def features(self, case: Case) -> Volume:
        """(C + n, *S') standardised."""
        return self._standardised(case)

    def _descriptor(self, case: Case) -> Volume:
        return _in_cells(
            case, intensity_and_position(case.volume), cell_grid(case.volume, self._spacing_range)
        )

    def _position(self, case: Case) -> Volume:
        position = self._descriptor(case)
        return position.with_array(position.array[len(case.volume.array) :])


class FilterKind:
    """Hand-made filters at four scales with a random forest.

    Args:
        cohort: gives mean and deviation for the index.
        spacing_range: working spacing of the encoder that this is compared with, mm.
    """

    def __init__(self, cohort: Cohort, spacing_range: tuple[float, float]) -> None:
        self._bank = cache(lambda case: filter_bank(case.volume))
        self._standardised = _standardiser(
            cohort, lambda case: _in_cells(case, self._bank(case), cell_grid(case.volume, spacing_range))
        )

    def fit(self, case: Case, voxels: NDArray[np.intp], seed: int) -> Predict:
        """A random forest; ``seed`` is of its bootstrap."""
        samples = self._bank(case).reshape(-1, case.label.size)[:, voxels].T
        forest = fit_forest(np.ascontiguousarray(samples), case.label.reshape(-1)[voxels], seed)

        def predict(other: Case) -> NDArray[np.integer]:
            columns = self._bank(other).reshape(-1, other.label.size)
            parts = [
                forest.predict(np.ascontiguousarray(columns[:, low : low + _FOREST_VOXELS].T))
                for low in range(0, other.label.size, _FOREST_VOXELS)
            ]
            return np.concatenate(parts).reshape(other.label.shape)

        return predict

    def features(self, case: Case) -> Volume:
        """(13 C, *S') standardised."""
        return self._standardised(case)


def cell_grid(volume: Volume, spacing_range: tuple[float, float]) -> Geometry:
    """The stride-4 grid on which an encoder of that working spacing describes a volume."""
    return working_geometry(volume.geometry, spacing_range).cells((DENSE_STRIDE,) * volume.spatial_dims)


def _fit_probe(case: Case, voxels: NDArray[np.intp], features: Callable[[Case], Volume]) -> Predict:
    index = np.unravel_index(voxels, case.label.shape)
    samples = Scan(case.volume, features(case)).sample(*index)
    probe = LinearProbe().fit_samples(samples, case.label[index])
    return lambda other: probe.predict(Scan(other.volume, features(other))).labels


def _in_cells(case: Case, maps: Floats, cells: Geometry) -> Volume:
    matrices = interpolation_matrices(case.volume.geometry, cells)
    return Volume(interpolate(maps, matrices), cells, case.volume.modality, case.volume.id)


def _standardiser(cohort: Cohort, describe: Callable[[Case], Volume]) -> Callable[[Case], Volume]:
    """``describe`` with every channel at mean 0 and deviation 1 over the cohort."""

    @cache
    def moments() -> tuple[Floats, Floats]:
        maps = [describe(case).array for case in cohort.cases]
        columns = np.concatenate([m.reshape(len(m), -1) for m in maps], axis=1)
        return columns.mean(axis=1), np.maximum(columns.std(axis=1), 1e-6)

    def standardised(case: Case) -> Volume:
        described = describe(case)
        mean, deviation = (m.reshape(-1, *(1,) * described.spatial_dims) for m in moments())
        return described.with_array((described.array - mean) / deviation)

    return standardised
