"""Any number of prototypes: learned ones merged, or clusters of the features at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medssl.retrieval.library import faiss_library
from medssl.volume.threads import one_blas_thread

_ITERATIONS, _SAMPLES_PER_CLUSTER = 25, 1000


def merge_prototypes(
    prototypes: NDArray[np.floating[Any]], k: int, counts: NDArray[np.integer[Any]] | None = None
) -> NDArray[np.int64]:
    """Group learned prototypes agglomeratively until ``k`` groups are left.

    Ward's rule on unit vectors: each step joins the two groups whose union adds least variance over
    the cells, so a prototype with few cells joins its neighbour before two large ones join. The groups
    for a smaller k are unions of those for a larger one.

    Args:
        prototypes: (K, D) unit vectors.
        k: groups wanted, at least 1.
        counts: (K,) cells of each prototype; prototypes without cells get no group. None takes one
            cell each.

    Returns:
        (K,) group of each prototype, 0 .. min(k, used) - 1, numbered by the smallest prototype in it;
        -1 for prototypes without cells.

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, it is {k}")
    weights = np.ones(len(prototypes)) if counts is None else np.asarray(counts, float)
    used = np.flatnonzero(weights > 0)
    group = np.full(len(prototypes), -1, np.int64)
    members = [[int(p)] for p in used]
    centre = np.asarray(prototypes, float)[used]
    mass = weights[used].copy()
    cost = _ward(centre, mass)
    np.fill_diagonal(cost, np.inf)
    while len(members) > k:
        i, j = sorted(divmod(int(cost.argmin()), len(members)))
        centre[i] = (mass[i] * centre[i] + mass[j] * centre[j]) / (mass[i] + mass[j])
        mass[i] += mass[j]
        members[i] += members.pop(j)
        centre, mass = np.delete(centre, j, 0), np.delete(mass, j)
        cost = np.delete(np.delete(cost, j, 0), j, 1)
        row = _ward(centre[[i]], mass[[i]], centre, mass)[0]
        row[i] = np.inf
        cost[i], cost[:, i] = row, row
    for number, group_members in enumerate(sorted(members, key=min)):
        group[group_members] = number
    return group


def _ward(
    a: NDArray[np.float64],
    mass_a: NDArray[np.float64],
    b: NDArray[np.float64] | None = None,
    mass_b: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Growth of the summed squared distance to the centre when two groups join."""
    if b is None or mass_b is None:
        b, mass_b = a, mass_a
    squared = ((a[:, None] - b[None]) ** 2).sum(-1)
    product, total = mass_a[:, None] * mass_b[None], mass_a[:, None] + mass_b[None]
    result: NDArray[np.float64] = squared * product / total
    return result


def cluster_centres(vectors: NDArray[np.floating[Any]], k: int, seed: int = 0) -> NDArray[np.float32]:
    """Centres of a spherical k-means over feature vectors.

    Args:
        vectors: (N, D), any length; at most 1000 per cluster are drawn from them.
        k: clusters, brought down to N.
        seed: of the draw and of the first centres.

    Returns:
        (k, D) unit vectors.
    """
    faiss = faiss_library()
    k = min(k, len(vectors))
    rng = np.random.default_rng(seed)
    if len(vectors) > k * _SAMPLES_PER_CLUSTER:
        vectors = vectors[np.sort(rng.choice(len(vectors), k * _SAMPLES_PER_CLUSTER, replace=False))]
    unit = _unit(np.asarray(vectors, np.float32))
    centres = _spread(unit[rng.permutation(len(unit))[: max(5000, 20 * k)]], k, rng)
    # faiss.Kmeans hands its result over in a std::vector, which breaks where SimpleITK was imported
    # after FAISS; so FAISS does the search, and the means are ours
    for _ in range(_ITERATIONS):
        index = faiss.IndexFlatIP(unit.shape[1])
        index.add(centres)
        cosine, nearest = index.search(unit, 1)
        cluster = nearest[:, 0]
        members = sparse.csr_array(
            (np.ones(len(unit), np.float32), (cluster, np.arange(len(unit)))), shape=(k, len(unit))
        )
        sums = members @ unit
        empty = np.flatnonzero(np.bincount(cluster, minlength=k) == 0)
        sums[empty] = unit[np.argsort(cosine[:, 0], kind="stable")[: len(empty)]]  # the worst fitted
        moved = _unit(sums)
        if np.allclose(moved, centres, atol=1e-6):
            break
        centres = moved
    return centres


def _spread(vectors: NDArray[np.float32], k: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """First centres that lie apart (k-means++): each drawn by its distance to those drawn before."""
    chosen = [int(rng.integers(len(vectors)))]
    with one_blas_thread():
        distance = 1 - vectors @ vectors[chosen[0]]
        while len(chosen) < k:
            share = np.maximum(distance, 1e-9).astype(np.float64)
            chosen.append(int(rng.choice(len(vectors), p=share / share.sum())))
            np.minimum(distance, 1 - vectors @ vectors[chosen[-1]], out=distance)
    return vectors[chosen]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(result)


def assign_cells(
    features: NDArray[np.floating[Any]],
    centres: NDArray[np.float32],
    origin: NDArray[np.float32] | None = None,
) -> NDArray[np.int64]:
    """The centre with the largest cosine for each cell.

    Args:
        features: (D, *S) map.
        centres: (k, D) unit vectors.
        origin: (D,) point from which directions are taken; None takes 0.

    Returns:
        (*S) int64 in 0 .. k - 1.
    """
    start = np.zeros(centres.shape[1], np.float32) if origin is None else origin
    with one_blas_thread():
        offset = (centres @ start).reshape(-1, *(1,) * (features.ndim - 2))
        best = [
            (np.tensordot(centres, slab.astype(np.float32), axes=(1, 0)) - offset).argmax(0)
            for slab in np.moveaxis(features, 1, 0)  # slab by slab: no float32 copy of the whole map
        ]
    return np.stack(best)


def label_map(
    assigned: NDArray[np.integer[Any]], group: NDArray[np.int64], mask: NDArray[np.bool_]
) -> NDArray[np.uint16]:
    """Groups of cells as labels: 0 outside ``mask``, group + 1 inside.

    Args:
        assigned: (*S) prototype of each cell.
        group: group of each prototype.
        mask: (*S) cells to label.
    """
    labels: NDArray[np.uint16] = np.where(mask, group[assigned] + 1, 0).astype(np.uint16)
    return labels
