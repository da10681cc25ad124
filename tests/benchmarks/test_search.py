"""From a click to ranked hits among a million vectors, against the bare FAISS call."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from medssl.retrieval.cells import Cells
from medssl.retrieval.index import FeatureIndex

pytestmark = pytest.mark.benchmark

VOLUMES, CELLS, DIM, TOP = 20, 50_000, 64, 10


@pytest.fixture(scope="module")
def index() -> FeatureIndex:
    """Twenty volumes of random unit vectors on a grid of 8 mm."""
    rng = np.random.default_rng(0)
    place = np.stack(np.unravel_index(np.arange(CELLS), (50, 40, 25)), axis=1)
    index = FeatureIndex(DIM, {"benchmark": True})
    for number in range(VOLUMES):
        vectors = rng.standard_normal((CELLS, DIM), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        mm = (8.0 * place[:, ::-1]).astype(np.float32)
        index.add(f"volume-{number}", Cells(vectors, (8 * place).astype(np.int32), mm))
    return index


def test_click_to_hits(index, figures, seconds) -> None:
    bare = faiss.IndexFlatIP(DIM)
    bare.add(index.vectors(np.arange(len(index))))
    click = np.array([96.0, 160.0, 200.0])
    query = index.cell_at("volume-3", click, 8.0)
    assert query is not None

    def ours() -> list[object]:
        return list(index.search(index.cell_at("volume-3", click, 8.0), TOP))

    assert len(ours()) == TOP
    taken, reference = seconds(ours, lambda: bare.search(query[None], TOP), runs=21)
    how = f"faiss.IndexFlatIP, the same {len(index):,} x {DIM}, top {TOP}: {1000 * reference:.0f} ms"
    figures.at_most("click to hits / bare FAISS", taken / reference, 1.3, "x", reference=how, runs=21)
    figures.at_most("click to hits", 1000 * taken, 150, "ms", reference=f"{len(index):,} vectors", runs=21)
