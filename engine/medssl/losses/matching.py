"""Second-order matching of two graphs: the quadratic assignment problem in Lawler's form."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

QapMethod = Literal["ipfp", "brute", "lap"]

_LARGEST_BRUTE = 8
_MOST_STEPS = 20
_NO_GAIN = 1e-9


@torch.no_grad()
def solve_qap(
    vertex: Tensor,
    edge: Tensor,
    edges_s: Tensor,
    edges_t: Tensor,
    method: QapMethod = "ipfp",
    *,
    starts: int = 3,
) -> Tensor:
    """Permutation that maximises sum_i vertex[i, p_i] + sum over edges e, f with f = p(e) of edge[e, f].

    An edge (i -> j) of s counts with the edge (p_i -> p_j) of t, if t has it. ``ipfp`` relaxes to doubly
    stochastic matrices, climbs with exact line search (integer projected fixed point, a Frank-Wolfe method)
    from several starts, then swaps pairs until no swap helps; never below the best first-order assignment.
    Deterministic. Works in float64 on the CPU, all graphs together, with 8 N^4 bytes per graph.

    Args:
        vertex: (G, N, N) affinities of node i of s and node a of t, any sign.
        edge: (G, E_s, E_t) affinities of the edges.
        edges_s: (2, E_s) or (G, 2, E_s) int64, start and end node of each edge of s.
        edges_t: (2, E_t) or (G, 2, E_t), alike.
        method: ``ipfp``; ``brute`` tries all permutations (N <= 8); ``lap`` ignores the edges.
        starts: for ``ipfp``: the first-order assignment, the barycentre, then random permutations. 3 suffice
            for clear affinities; take 10 where noise is as large as the affinities.

    Returns:
        (G, N) int64, p_i per node of s.

    Raises:
        ValueError: on shapes that do not fit, or ``brute`` with more than 8 nodes.

    Reference: Leordeanu, Hebert, Sukthankar, "An integer projected fixed point method for graph matching and
    MAP inference", NeurIPS 2009. The objective is that of Nguyen et al. (LVM-Med), NeurIPS 2023, equation 5.
    """
    problem = _Problem.of(vertex, edge, edges_s, edges_t)
    if method == "lap":
        solution = problem.assign(problem.vertex[:, None])[:, 0]
    elif method == "brute":
        solution = _brute(problem)
    elif method == "ipfp":
        solution = _ipfp(problem, starts)
    else:
        raise ValueError(f"method must be ipfp, brute or lap, got {method!r}")
    return solution.to(vertex.device)


@torch.no_grad()
def qap_objective(
    vertex: Tensor, edge: Tensor, edges_s: Tensor, edges_t: Tensor, permutation: Tensor
) -> Tensor:
    """What `solve_qap` maximises: (G,) values of permutations (G, N)."""
    problem = _Problem.of(vertex, edge, edges_s, edges_t)
    v = problem.one_hot(permutation.cpu()[:, None])
    return problem.value(v, problem.pull(v))[:, 0].to(vertex.device)


@dataclass(frozen=True)
class _Problem:
    """Objective <c, v> + v H v / 2 on assignments flattened to N * N, from vertex and edge affinities."""

    vertex: Tensor  # (G, N * N)
    pairwise: Tensor  # (G, N * N, N * N), symmetric
    nodes: int

    @classmethod
    def of(cls, vertex: Tensor, edge: Tensor, edges_s: Tensor, edges_t: Tensor) -> _Problem:
        if vertex.ndim != 3 or vertex.shape[1] != vertex.shape[2]:
            raise ValueError(f"vertex must be (G, N, N), got {tuple(vertex.shape)}")
        graphs, nodes = vertex.shape[:2]
        if edge.shape != (graphs, edges_s.shape[-1], edges_t.shape[-1]):
            raise ValueError(
                f"edge must be ({graphs}, {edges_s.shape[-1]}, {edges_t.shape[-1]}), got {tuple(edge.shape)}"
            )
        s, t = (e.cpu().expand(graphs, 2, e.shape[-1]) for e in (edges_s, edges_t))
        begin, end = (s[:, k, :, None] * nodes + t[:, k, None, :] for k in (0, 1))  # (G, E_s, E_t)
        pairwise = torch.zeros(graphs, nodes**4, dtype=torch.float64)
        for row, column in ((begin, end), (end, begin)):
            pairwise.scatter_add_(1, (row * nodes**2 + column).flatten(1), edge.cpu().double().flatten(1))
        return cls(vertex.cpu().double().flatten(1), pairwise.reshape(graphs, nodes**2, nodes**2), nodes)

    def one_hot(self, permutation: Tensor) -> Tensor:
        """Assignments of permutations, (G, M, N) -> (G, M, N * N)."""
        return functional.one_hot(permutation, self.nodes).double().flatten(2)

    def pull(self, v: Tensor) -> Tensor:
        """H v for assignments (G, M, N * N), alike."""
        return v @ self.pairwise

    def value(self, v: Tensor, pull: Tensor) -> Tensor:
        """Objective of assignments (G, M, N * N) with their pull: (G, M)."""
        return (v * (self.vertex[:, None] + pull / 2)).sum(dim=-1)

    def assign(self, affinity: Tensor) -> Tensor:
        """Best first-order assignment, (G, M, N * N) -> (G, M, N)."""
        flat = affinity.reshape(-1, self.nodes, self.nodes).numpy()
        best = [torch.from_numpy(linear_sum_assignment(one, maximize=True)[1]) for one in flat]
        return torch.stack(best).reshape(*affinity.shape[:-1], self.nodes)


def _brute(problem: _Problem) -> Tensor:
    nodes = problem.nodes
    if nodes > _LARGEST_BRUTE:
        raise ValueError(f"brute force goes up to {_LARGEST_BRUTE} nodes, got {nodes}; use method='ipfp'")
    every = torch.tensor(list(permutations(range(nodes))))
    v = problem.one_hot(every[None])  # (1, N!, N * N)
    best = []
    for vertex, pairwise in zip(problem.vertex, problem.pairwise, strict=True):
        one = _Problem(vertex[None], pairwise[None], nodes)
        best.append(one.value(v, one.pull(v))[0].argmax())
    return every[torch.stack(best)]


def _ipfp(problem: _Problem, starts: int) -> Tensor:
    graphs, nodes = len(problem.vertex), problem.nodes
    # A fixed seed: the same affinities always give the same matching.
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(max(starts - 2, 0), nodes, generator=generator).argsort(dim=-1)
    best = problem.assign(problem.vertex[:, None])  # (G, 1, N)
    soft = [problem.one_hot(best)]
    if starts > 1:
        soft.append(torch.full((graphs, 1, nodes**2), 1 / nodes, dtype=torch.float64))
        soft.append(problem.one_hot(drawn.expand(graphs, *drawn.shape)))
    v = torch.cat(soft, dim=1)  # (G, M, N * N)
    best = best.expand(graphs, v.shape[1], nodes)
    pull, pull_best = problem.pull(v), problem.pull(soft[0]).expand_as(v)
    value = problem.value(problem.one_hot(best), pull_best)
    for _ in range(_MOST_STEPS):
        slope = problem.vertex[:, None] + pull
        corner = problem.assign(slope)
        u = problem.one_hot(corner)
        pull_u = problem.pull(u)
        reached = problem.value(u, pull_u)
        better = (reached > value)[..., None]
        best, pull_best = torch.where(better, corner, best), torch.where(better, pull_u, pull_best)
        value = torch.maximum(value, reached)
        # Along v + t (u - v) the objective is gain * t + bend * t^2.
        gain = (slope * (u - v)).sum(dim=-1)
        if bool((gain <= _NO_GAIN).all()):
            break
        bend = ((u - v) * (pull_u - pull)).sum(dim=-1) / 2
        step = torch.where(bend < 0, -gain / (2 * bend), 1.0).clamp(max=1)[..., None]
        v, pull = v + step * (u - v), pull + step * (pull_u - pull)
    best, value = _swap(problem, best, pull_best, value)
    return best[torch.arange(graphs), value.argmax(dim=1)]


def _swap(problem: _Problem, permutation: Tensor, pull: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Swap the best pair of each permutation (G, M, N) until no swap improves any."""
    nodes = problem.nodes
    if nodes < 2:
        return permutation, value
    i, j = torch.triu_indices(nodes, nodes, offset=1)  # each (P,)
    sign = torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    for _ in range(nodes**2):
        a, b = permutation[..., i], permutation[..., j]  # (G, M, P)
        touched = torch.stack([i * nodes + a, j * nodes + b, i * nodes + b, j * nodes + a], dim=-1)
        slope = (problem.vertex[:, None] + pull).gather(2, touched.flatten(2)).reshape(touched.shape)
        block = (touched[..., :, None] * nodes**2 + touched[..., None, :]).flatten(1)
        bend = problem.pairwise.flatten(1).gather(1, block).reshape(*touched.shape, 4)
        change = (slope * sign).sum(dim=-1) + (bend * sign[:, None] * sign).sum(dim=(-2, -1)) / 2
        top, pair = change.max(dim=-1)  # (G, M)
        better = top > _NO_GAIN
        if not bool(better.any()):
            break
        first, second = i[pair][..., None], j[pair][..., None]  # (G, M, 1)
        swapped = permutation.scatter(2, first, permutation.gather(2, second))
        swapped = swapped.scatter(2, second, permutation.gather(2, first))
        permutation = torch.where(better[..., None], swapped, permutation)
        value = torch.where(better, value + top, value)
        pull = problem.pull(problem.one_hot(permutation))
    return permutation, value
