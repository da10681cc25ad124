"""Search hits in other subjects, judged by the label of the cell that was hit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.evaluation.cell_labels import majority_labels
from medssl.evaluation.cohort import Case, Cohort
from medssl.evaluation.protocols import precision_at
from medssl.retrieval.cells import POOLING, Cells, index_cells
from medssl.retrieval.index import FeatureIndex
from medssl.volume import Geometry, Volume


def retrieval(
    cohort: Cohort,
    features: Callable[[Case], Volume],
    *,
    queries: int,
    top: int,
    seed: int,
    asked_in: Sequence[Case] | None = None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Precision of the product's search across subjects.

    Every case is entered in one index as `medssl embed` does. Queries are indexed cells of every
    foreground class of every case; hits are looked for in the other cases, apart from each other as in
    the product, and are right where the majority of the voxels of their cell has the class of the query.

    Args:
        cohort: at least two cases.
        features: dense features of a case on the stride-4 grid.
        queries: cells per class and case, all where there are fewer.
        top: hits per query.
        seed: picks the query cells.
        asked_in: the cases that queries come from, under the same names; by default those of the index.

    Returns:
        As `medssl.evaluation.protocols.precision_at`.

    Raises:
        InputError: no cell belongs to a foreground class.
    """
    described = {case.volume.id: _describe(case, features(case)) for case in cohort.cases}
    index = FeatureIndex(next(iter(described.values()))[0].vectors.shape[1], {"evaluation": "retrieval"})
    row_of: dict[tuple[str, tuple[float, ...]], int] = {}
    for name, (cells, _) in described.items():
        index.add(name, cells)
        row_of |= {(name, tuple(mm)): len(row_of) + i for i, mm in enumerate(cells.mm.astype(float).tolist())}
    index_labels = np.concatenate([labels for _, labels in described.values()])
    generator = np.random.default_rng(seed)
    found, asked = [], []
    asking = described
    if asked_in is not None:
        asking = {case.volume.id: _describe(case, features(case)) for case in asked_in}
    for name, (cells, labels) in asking.items():
        others = [other for other in described if other != name]
        for row in _query_rows(labels, queries, generator):
            hits = index.search(cells.vectors[row], top, volumes=others)
            rows = [row_of[hit.volume, hit.mm] for hit in hits]
            found.append(rows + [-1] * (top - len(rows)))
            asked.append(labels[row])
    if not found:
        raise InputError(
            f"{cohort.name}: no cell of the index is mostly foreground, its structures are smaller than "
            "a cell; leave this table out of retrieval"
        )
    return precision_at(np.array(found), np.array(asked), index_labels)


def _describe(case: Case, dense: Volume) -> tuple[Cells, NDArray[np.int16]]:
    """The cells of a case as the index keeps them, and their classes (N,)."""
    cells = index_cells(dense, case.volume)
    grid: Geometry = dense.geometry.cells((POOLING,) * dense.spatial_dims)
    majority = majority_labels(case.label, case.volume.geometry, grid)
    where = np.rint(grid.to_index(cells.mm[:, ::-1])).astype(np.intp)
    return cells, majority[tuple(where.T)]


def _query_rows(labels: NDArray[np.int16], queries: int, generator: np.random.Generator) -> NDArray[np.intp]:
    rows = [np.flatnonzero(labels == value) for value in np.unique(labels[labels > 0])]
    picks = [generator.choice(r, min(queries, len(r)), replace=False) for r in rows]
    return np.concatenate(picks) if picks else np.empty(0, np.intp)
