"""Second-order matching of two graphs: the quadratic assignment problem in Lawler's form."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from medssl.losses.assignment import assign
from medssl.losses.fixed_point import Search, pairwise_table

QapMethod = Literal["ipfp", "brute", "lap"]

_LARGEST_BRUTE = 8
_TABLES = 2**22  # entries of the pairwise tables (N^4 per graph) of the graphs that are searched at a time


@torch.no_grad()
def solve_qap(
    vertex: Tensor,
    edge: Tensor,
    edges_s: Tensor,
    edges_t: Tensor,
    method: QapMethod = "ipfp",
    *,
    starts: int = 3,
    shortcut: bool = False,
) -> Tensor:
    """Permutation that maximises sum_i vertex[i, p_i] + sum over edges e, f with f = p(e) of edge[e, f].

    An edge (i -> j) of s counts with the edge (p_i -> p_j) of t, if t has it. ``ipfp`` relaxes to doubly
    stochastic matrices, climbs with exact line search (integer projected fixed point, a Frank-Wolfe method)
    from several starts, then swaps pairs until no swap helps; never below the best first-order assignment.
    Deterministic. Works on the CPU, all graphs and starts together, with
    4 N^4 bytes per graph.

    Args:
        vertex: (G, N, N) affinities of node i of s and node a of t, any sign.
        edge: (G, E_s, E_t) affinities of the edges.
        edges_s: (2, E_s) or (G, 2, E_s) int64, start and end node of each edge of s.
        edges_t: (2, E_t) or (G, 2, E_t), alike.
        method: ``ipfp``; ``brute`` tries all permutations (N <= 8); ``lap`` ignores the edges.
        starts: for ``ipfp``: the first-order assignment, the barycentre, then random permutations. 3 suffice
            for clear affinities; take 10 where noise is as large as the affinities.
        shortcut: for ``ipfp``: do not search where `first_order_suffices`.

    Returns:
        (G, N) int64, p_i per node of s.

    Raises:
        ValueError: on shapes that do not fit, or ``brute`` with more than 8 nodes.

    Reference: Leordeanu, Hebert, Sukthankar, "An integer projected fixed point method for graph matching and
    MAP inference", NeurIPS 2009. The objective is that of Nguyen et al. (LVM-Med), NeurIPS 2023, equation 5.
    """
    problem = Problem.of(vertex, edge, edges_s, edges_t)
    if method == "lap":
        solution = problem.first_order()
    elif method == "brute":
        solution = _brute(problem)
    elif method == "ipfp":
        solution = _ipfp(problem, starts, shortcut)
    else:
        raise ValueError(f"method must be ipfp, brute or lap, got {method!r}")
    return solution.to(vertex.device)


@torch.no_grad()
def qap_objective(
    vertex: Tensor, edge: Tensor, edges_s: Tensor, edges_t: Tensor, permutation: Tensor
) -> Tensor:
    """What `solve_qap` maximises: (G,) values of permutations (G, N)."""
    problem = Problem.of(vertex, edge, edges_s, edges_t)
    return problem.value(permutation.cpu()).to(vertex.device)


@torch.no_grad()
def first_order_suffices(
    vertex: Tensor, edge: Tensor, edges_s: Tensor, edges_t: Tensor, permutation: Tensor
) -> Tensor:
    """Whether a permutation is proven the best second-order matching by its vertex affinities alone.

    Leaving p at a set of nodes changes edges that touch one of them; those of node i can gain at most
    gain_i = sum over its edges e of max(0, max_f edge[e, f]) - edge[e, p(e)]. With the duals
    u_i = vertex[i, p_i] / 2 on both sides, the vertices lose slack[i, a] = u_i + u_j - vertex[i, a] per node
    i taken to a = p_j, if that is nowhere negative. p is the only optimum if slack[i, a] > gain_i for every
    a other than p_i. Sufficient, not necessary; never claimed where an edge of t occurs twice.

    Args:
        vertex: as in `solve_qap`, and so are all but the last.
        edge: (G, E_s, E_t).
        edges_s: (2, E_s) or (G, 2, E_s).
        edges_t: (2, E_t) or (G, 2, E_t).
        permutation: (G, N), usually the first-order optimum.

    Returns:
        (G,) bool.
    """
    problem = Problem.of(vertex, edge, edges_s, edges_t)
    return problem.is_settled(permutation.cpu()).to(vertex.device)


@dataclass(frozen=True)
class Problem:
    """Affinities of G pairs of graphs, on the CPU."""

    vertex: Tensor  # (G, N, N) float64
    edge: Tensor  # (G, E_s, E_t)
    s: Tensor  # (G, 2, E_s)
    t: Tensor  # (G, 2, E_t)

    @classmethod
    def of(cls, vertex: Tensor, edge: Tensor, edges_s: Tensor, edges_t: Tensor) -> Problem:
        """From what `solve_qap` takes, checked."""
        if vertex.ndim != 3 or vertex.shape[1] != vertex.shape[2]:
            raise ValueError(f"vertex must be (G, N, N), got {tuple(vertex.shape)}")
        graphs = len(vertex)
        if edge.shape != (graphs, edges_s.shape[-1], edges_t.shape[-1]):
            raise ValueError(
                f"edge must be ({graphs}, {edges_s.shape[-1]}, {edges_t.shape[-1]}), got {tuple(edge.shape)}"
            )
        s, t = (e.cpu().expand(graphs, 2, e.shape[-1]) for e in (edges_s, edges_t))
        return cls(vertex.cpu().double(), edge.cpu(), s, t)

    def part(self, which: Tensor | slice) -> Problem:
        """Some of the graphs."""
        return Problem(self.vertex[which], self.edge[which], self.s[which], self.t[which])

    @property
    def nodes(self) -> int:
        """N."""
        return self.vertex.shape[1]

    def first_order(self) -> Tensor:
        """Best assignment (G, N) of the vertices alone."""
        return assign(self.vertex)

    def kept(self, permutation: Tensor) -> Tensor:
        """(G, E_s) affinity of each edge of s with its image, 0 where t has no such edge."""
        begin, end = (permutation.gather(1, self.s[:, k]) for k in (0, 1))
        hit = (begin[:, :, None] == self.t[:, None, 0]) & (end[:, :, None] == self.t[:, None, 1])
        return self.edge.masked_fill(~hit, 0).sum(dim=2)

    def value(self, permutation: Tensor) -> Tensor:
        """(G,) objective of permutations (G, N), float64."""
        own = self.vertex.gather(2, permutation[..., None])[..., 0]
        return own.sum(dim=1) + self.kept(permutation).double().sum(dim=1)

    def is_settled(self, permutation: Tensor) -> Tensor:
        """See `first_order_suffices`."""
        graphs, nodes = permutation.shape
        cells = (self.t[:, 0] * nodes + self.t[:, 1]).sort(dim=1).values
        repeated = (cells[:, 1:] == cells[:, :-1]).any(dim=1)
        best = (
            self.edge.amax(dim=2).clamp(min=0)
            if self.edge.shape[2]
            else self.edge.new_zeros(self.edge.shape[:2])
        )
        gain = (best - self.kept(permutation)).double()  # (G, E_s)
        per_node = torch.zeros(graphs, nodes, dtype=torch.float64)
        for k in (0, 1):
            per_node.scatter_add_(1, self.s[:, k], gain)
        own = self.vertex.gather(2, permutation[..., None])[..., 0] / 2  # (G, N)
        owner = own.gather(1, permutation.argsort(dim=1))  # of the node that is taken to a
        slack = own[:, :, None] + owner[:, None, :] - self.vertex
        slack = slack.scatter(2, permutation[..., None], torch.inf)
        return (slack.amin(dim=2) > per_node).all(dim=1) & ~repeated


def _brute(problem: Problem) -> Tensor:
    nodes = problem.nodes
    if nodes > _LARGEST_BRUTE:
        raise ValueError(f"brute force goes up to {_LARGEST_BRUTE} nodes, got {nodes}; use method='ipfp'")
    every = torch.tensor(list(permutations(range(nodes))))
    v = functional.one_hot(every, nodes).double().flatten(1)  # (N!, N * N)
    table = pairwise_table(problem.edge.double(), problem.s, problem.t, nodes)
    values = [
        v @ one + ((v @ pull) * v).sum(dim=1) / 2
        for one, pull in zip(problem.vertex.flatten(1), table, strict=True)
    ]
    return every[torch.stack(values).argmax(dim=1)]


def _ipfp(problem: Problem, starts: int, shortcut: bool) -> Tensor:
    best = problem.first_order()
    rest = torch.arange(len(best))
    if shortcut:
        rest = rest[~problem.is_settled(best)]
    for part in torch.split(rest, max(1, _TABLES // problem.nodes**4)):
        some = problem.part(part)
        best[part] = Search.of(some.vertex, some.edge, some.s, some.t).run(best[part], starts)
    return best
