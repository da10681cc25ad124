"""A linear classifier on frozen features: from a few labelled voxels to every voxel, in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.probing.emphasis import intensity_emphasis, strokes
from medssl.probing.logistic import LogisticModel, fit_logistic
from medssl.probing.samples import Scan
from medssl.volume.resample import interpolate, interpolation_matrices
from medssl.volume.threads import one_blas_thread

DEFAULT_C = 0.1
"""Inverse strength of the L2 penalty (C of scikit-learn); best in the pilot on standardised features."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a probe says about a volume.

    Args:
        labels: (*S) uint8, class of every voxel.
        uncertainty: (*S) float16, 1 - (largest - second largest probability); None where not asked for.
        probabilities: (C, *S) float16 in the order of the probe's classes; None where not asked for.
    """

    labels: NDArray[np.uint8]
    uncertainty: NDArray[np.float16] | None = None
    probabilities: NDArray[np.float16] | None = None


class LinearProbe:
    """Multinomial logistic regression on dense features and intensity.

    Inputs of a voxel: the 64 channels of the stride-4 map interpolated there, the normalised intensity,
    and the intensity smoothed over about 3 voxels. Classes are balanced. Where brightness alone tells the
    labelled strokes apart, it counts more (`intensity_emphasis`). A probe that is fitted again starts from
    its last weights.

    Args:
        inverse_strength: C of the L2 penalty.
    """

    def __init__(self, inverse_strength: float = DEFAULT_C) -> None:
        self.inverse_strength = inverse_strength
        self.classes: tuple[int, ...] = ()
        self._model: LogisticModel | None = None

    def fit(self, scans: Sequence[tuple[Scan, NDArray[Any]]]) -> Self:
        """Learn from labelled voxels of one or more volumes.

        Args:
            scans: per volume its inputs and a label array (*S) with 0 = unlabelled, 1 .. C = class.

        Raises:
            InputError: fewer than two classes are labelled.
        """
        places = [np.nonzero(np.asarray(labels)) for _, labels in scans]
        samples = [scan.sample(*index) for (scan, _), index in zip(scans, places, strict=True)]
        values = [np.asarray(labels)[index] for (_, labels), index in zip(scans, places, strict=True)]
        return self.fit_samples(np.concatenate(samples), np.concatenate(values), places)

    def fit_samples(
        self,
        samples: NDArray[np.float32],
        labels: NDArray[Any],
        places: Sequence[Sequence[NDArray[np.integer[Any]]]] = (),
    ) -> Self:
        """Learn from samples and their classes.

        Args:
            samples: (N, D) as `Scan.sample` gives them.
            labels: (N,) classes.
            places: of the samples, one index per volume in their order, as `np.nonzero` gives them; without,
                each sample is taken for a stroke of its own.
        """
        classes, target = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            known = f"only class {classes[0]}" if len(classes) else "nothing"
            raise InputError(f"{known} is labelled; label voxels of at least two classes")
        names = tuple(int(c) for c in classes)
        start = self._model if names == self.classes else None
        with one_blas_thread():
            emphasis = intensity_emphasis(
                samples, target, len(classes), self.inverse_strength, _strokes(places, len(samples))
            )
            self._model = fit_logistic(
                samples, target, len(classes), self.inverse_strength, start=start, emphasis=emphasis
            )
        self.classes = names
        return self

    def predict(
        self, scan: Scan, *, with_uncertainty: bool = False, with_probabilities: bool = False
    ) -> Prediction:
        """Classify every voxel of a volume.

        The logits of the features are computed per cell and interpolated, not the features: C values
        instead of 64. Slab by slab along the first axis.

        Args:
            scan: inputs of the volume.
            with_uncertainty: also 1 - margin of the probabilities.
            with_probabilities: also the probability of every class.

        Raises:
            InputError: the probe was not fitted, or on features of another width.
        """
        model = self._fitted(scan)
        with one_blas_thread():
            return self._predict(model, scan, with_uncertainty, with_probabilities)

    def _predict(
        self, model: LogisticModel, scan: Scan, with_uncertainty: bool, with_probabilities: bool
    ) -> Prediction:
        weight, bias = model.folded()
        depth = scan.features.array.shape[0]
        cells = np.empty((len(weight), *scan.features.geometry.shape), np.float32)
        for low in range(0, cells.shape[1], 8):  # slab by slab: no float32 copy of the whole map
            slab = np.asarray(scan.features.array[:, low : low + 8], np.float32)
            cells[:, low : low + 8] = np.tensordot(weight[:, :depth], slab, axes=(1, 0))
        cells += bias.reshape(-1, *(1,) * scan.spatial_dims)
        rest = weight[:, depth:]
        matrices = interpolation_matrices(scan.features.geometry, scan.geometry)
        shape = scan.geometry.shape
        labels = np.empty(shape, np.uint8)
        uncertainty = np.empty(shape, np.float16) if with_uncertainty else None
        probabilities = np.empty((len(self.classes), *shape), np.float16) if with_probabilities else None
        names = np.asarray(self.classes, np.uint8)
        thick = max(1, 4_000_000 // (len(names) * int(np.prod(shape[1:]))))
        for low in range(0, shape[0], thick):
            rows = slice(low, min(shape[0], low + thick))
            logits = interpolate(cells, (matrices[0][rows], *matrices[1:]))
            intensities = scan.intensities(rows)
            for number, factors in enumerate(rest):
                logits[number] += np.tensordot(factors, intensities, axes=(0, 0))
            labels[rows] = names[logits.argmax(0)]
            if uncertainty is not None or probabilities is not None:
                logits -= logits.max(0)
                np.exp(logits, out=logits)
                logits /= logits.sum(0)
                if probabilities is not None:
                    probabilities[:, rows] = logits
                if uncertainty is not None:
                    top = np.partition(logits, len(names) - 2, axis=0)[-2:]
                    uncertainty[rows] = 1 - (top[1] - top[0])
        return Prediction(labels, uncertainty, probabilities)

    def predict_samples(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (N, C) of samples (N, D) as `Scan.sample` gives them."""
        if self._model is None:
            raise InputError("the probe has not seen any label; fit it first")
        return self._model.probabilities(samples)

    def folded(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(weight (C, D), bias (C,)) that take samples as they are, for a network to start from."""
        if self._model is None:
            raise InputError("the probe has not seen any label; fit it first")
        return self._model.folded()

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything needed to restore the probe, as plain arrays (no pickle)."""
        if self._model is None:
            raise InputError("the probe has not seen any label; fit it first")
        return {
            "classes": np.asarray(self.classes, np.int64),
            "inverse_strength": np.asarray(self.inverse_strength),
            "weight": self._model.weight,
            "bias": self._model.bias,
            "mean": self._model.mean,
            "scale": self._model.scale,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of `to_arrays`."""
        probe = cls(float(arrays["inverse_strength"].item()))
        probe.classes = tuple(int(c) for c in arrays["classes"])
        probe._model = LogisticModel(arrays["weight"], arrays["bias"], arrays["mean"], arrays["scale"])
        return probe

    def _fitted(self, scan: Scan) -> LogisticModel:
        if self._model is None:
            raise InputError("the probe has not seen any label; fit it first")
        if self._model.weight.shape[1] != scan.width:
            raise InputError(
                f"the probe was fitted on {self._model.weight.shape[1]} inputs and this volume has "
                f"{scan.width}; use the encoder it was fitted with"
            )
        return self._model


def _strokes(places: Sequence[Sequence[NDArray[np.integer[Any]]]], count: int) -> NDArray[np.int64]:
    """(N,) stroke of each sample; no two volumes share one."""
    if not places:
        return np.arange(count)
    found, first = [], 0
    for index in places:
        found.append(strokes(index) + first)
        first += len(index[0])
    return np.concatenate(found)
