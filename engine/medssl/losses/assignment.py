"""The best first-order assignment of many matrices, with SciPy where it is installed and without."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

try:
    from scipy.optimize import linear_sum_assignment
except ImportError:  # a machine that pre-trains on a prepared cache need not have it
    linear_sum_assignment = None


def assign(affinity: Tensor) -> Tensor:
    """Best first-order assignment: (*B, N, N) on the CPU -> (*B, N)."""
    nodes = affinity.shape[-1]
    cost = -affinity.reshape(-1, nodes, nodes).double().numpy()
    best = np.empty(cost.shape[:2], np.int64)
    for row, one in zip(best, cost, strict=True):
        row[:] = shortest_paths(one) if linear_sum_assignment is None else linear_sum_assignment(one)[1]
    return torch.from_numpy(best).reshape(affinity.shape[:-1])


def shortest_paths(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """The assignment of least cost: rows enter one by one along shortest augmenting paths.

    Args:
        cost: (N, N).

    Returns:
        (N,) column of each row.

    Reference: Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
    assignment problems", Computing 38, 1987.
    """
    nodes = len(cost)
    row_price, column_price = np.zeros(nodes), np.zeros(nodes)
    owner = np.full(nodes, -1)  # row of each column
    for new in range(nodes):
        distance, before = np.full(nodes, np.inf), np.full(nodes, -1)
        closed = np.zeros(nodes, bool)
        row, column, least = new, -1, 0.0
        while row >= 0:
            reach = least + cost[row] - row_price[row] - column_price
            shorter = ~closed & (reach < distance)
            distance[shorter], before[shorter] = reach[shorter], column
            column = int(np.where(closed, np.inf, distance).argmin())
            least, row = float(distance[column]), int(owner[column])
            closed[column] = True
        inside = closed & (owner >= 0)
        row_price[new] += least
        row_price[owner[inside]] += least - distance[inside]
        column_price[closed] += distance[closed] - least
        while column >= 0:  # every column on the path takes the row of the one before
            earlier = int(before[column])
            owner[column] = new if earlier < 0 else owner[earlier]
            column = earlier
    return np.argsort(owner)
