from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from medssl.losses import assignment
from medssl.losses.assignment import assign, shortest_paths


@pytest.mark.parametrize("nodes", [1, 2, 7, 16, 40])
def test_shortest_paths_find_the_best_assignment(nodes: int) -> None:
    rng = np.random.default_rng(nodes)
    for cost in (rng.normal(size=(nodes, nodes)), rng.integers(0, 3, (nodes, nodes)).astype(float)):
        found = shortest_paths(cost)
        assert sorted(found) == list(range(nodes))
        best = cost[linear_sum_assignment(cost)].sum()
        assert cost[np.arange(nodes), found].sum() == pytest.approx(best)


def test_assignments_are_the_same_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    affinity = torch.rand(3, 5, 9, 9, generator=torch.Generator().manual_seed(0))
    expected = assign(affinity)
    monkeypatch.setattr(assignment, "linear_sum_assignment", None)
    assert torch.equal(assign(affinity), expected)
    assert expected.shape == (3, 5, 9)
