"""How much brightness counts in a probe, decided on its own labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from medssl.probing.logistic import fit_logistic

INTENSITY_WEIGHT = 8.0
"""How much more the intensities count where they alone tell the classes apart."""

_CLEARLY = 0.75  # share of the plain loss below which the heavier intensities are taken
_ERRORS = 2.0  # standard errors by which strokes must gain: a handful of clicks proves little
_FOLDS = 3
_MOST = 200  # voxels per class that the decision looks at
_MOST_IN_STROKES = 50_000  # labelled voxels up to which strokes are told apart


def strokes(index: Sequence[NDArray[np.integer[Any]]]) -> NDArray[np.int64]:
    """Number of the stroke that each labelled voxel belongs to: voxels that touch are one.

    Args:
        index: one vector (N,) per axis, as `np.nonzero` gives them.

    Returns:
        (N,) from 0; of very many voxels each is taken for a stroke of its own.
    """
    count = len(index[0])
    if count > _MOST_IN_STROKES:
        return np.arange(count)
    pairs = cKDTree(np.stack(index, axis=1)).query_pairs(1, p=np.inf, output_type="ndarray")
    touching = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    found: NDArray[np.int64] = connected_components(touching, directed=False)[1].astype(np.int64)
    return found


def intensity_emphasis(
    samples: NDArray[np.floating[Any]],
    target: NDArray[np.integer[Any]],
    classes: int,
    inverse_strength: float,
    of_stroke: NDArray[np.integer[Any]],
) -> NDArray[np.float64]:
    """Factors (D,) on the standardised inputs: 1, or `INTENSITY_WEIGHT` on the last two, the intensities.

    Features that know organs know little of two tissues side by side whose brightness differs, and 64 of
    them outvote two intensities. The heavier ones are taken where a probe with them says the labels of
    strokes that it has not seen clearly better (balanced cross entropy, strokes dealt to three folds), and
    strokes agree on that.

    Args:
        samples: (N, D) as `Scan.sample` gives them.
        target: (N,) in 0 .. classes - 1.
        classes: number C of classes.
        inverse_strength: of the probe.
        of_stroke: (N,) stroke of each sample.
    """
    plain, heavy = np.ones(samples.shape[1]), np.ones(samples.shape[1])
    heavy[-2:] = INTENSITY_WEIGHT
    kept, fold = [], np.zeros(len(target), np.int64)
    for number in range(classes):
        own = np.flatnonzero(target == number)
        own = own[:: -(-len(own) // _MOST)]
        rank = np.unique(of_stroke[own], return_inverse=True)[1]
        if rank.max() == 0:
            return plain  # nothing is left to learn the class from where its only stroke is held out
        fold[own] = rank % _FOLDS
        kept.append(own)
    chosen = np.concatenate(kept)
    x, y, part = samples[chosen], target[chosen], fold[chosen]
    usual, other = (
        _held_out_losses(x, y, part, classes=classes, inverse_strength=inverse_strength, emphasis=way)
        for way in (plain, heavy)
    )
    gains = np.bincount(np.unique(of_stroke[chosen], return_inverse=True)[1], usual - other)
    is_sure = gains.sum() > _ERRORS * math.sqrt(len(gains)) * gains.std()
    return heavy if is_sure and other.sum() < _CLEARLY * usual.sum() else plain


def _held_out_losses(
    x: NDArray[np.floating[Any]],
    y: NDArray[np.integer[Any]],
    part: NDArray[np.integer[Any]],
    *,
    classes: int,
    inverse_strength: float,
    emphasis: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(N,) cross entropy of every sample under a probe that has not seen its fold, classes balanced."""
    share = 1 / np.bincount(y, minlength=classes)
    losses = np.zeros(len(y))
    for fold in range(_FOLDS):
        held = part == fold
        if held.any():
            model = fit_logistic(x[~held], y[~held], classes, inverse_strength, emphasis=emphasis)
            right = model.probabilities(x[held])[np.arange(held.sum()), y[held]]
            losses[held] = -share[y[held]] * np.log(np.maximum(right, 1e-6))
    return losses
