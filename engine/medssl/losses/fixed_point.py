"""The integer projected fixed point search behind second-order matching, many graphs and starts at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from medssl.losses.assignment import assign

_MOST_STEPS = 20
_NO_GAIN = 1e-5  # relative to the objective; it is added up in single precision


def pairwise_table(edge: Tensor, s: Tensor, t: Tensor, nodes: int) -> Tensor:
    """Affinity of every two cells: H[(i, a), (j, b)] of edges i -> j and a -> b, plus its transpose.

    Args:
        edge: (G, E_s, E_t).
        s: (G, 2, E_s) edges.
        t: (G, 2, E_t) edges.
        nodes: N.

    Returns:
        (G, N * N, N * N), symmetric; v H v / 2 is what the edges give to an assignment v.
    """
    begin, end = (s[:, k, :, None] * nodes + t[:, k, None, :] for k in (0, 1))  # (G, E_s, E_t)
    loop_s, loop_t = s[:, 0] == s[:, 1], t[:, 0] == t[:, 1]
    if bool(loop_s.any()) or bool(loop_t.any()):  # no permutation takes a loop to an edge
        edge = edge.masked_fill(loop_s[:, :, None] != loop_t[:, None, :], 0)
    where = (begin * nodes**2 + end).flatten(1)
    table = edge.new_zeros(len(edge), nodes**4)
    if _is_repeated(s, nodes) or _is_repeated(t, nodes):
        table.scatter_add_(1, where, edge.flatten(1))
    else:  # several times faster
        table.scatter_(1, where, edge.flatten(1))
    table = table.view(-1, nodes**2, nodes**2)
    return table + table.mT


@dataclass(frozen=True)
class Search:
    """Climbs <vertex, v> + v H v / 2 from several starts per graph.

    Args:
        vertex: (G, N * N) float32.
        table: (G * N * N, N * N) float32, rows of H, zero on its diagonal.
        nodes: N.
    """

    vertex: Tensor
    table: Tensor
    nodes: int

    @classmethod
    def of(cls, vertex: Tensor, edge: Tensor, s: Tensor, t: Tensor) -> Search:
        """From affinities (G, N, N) and (G, E_s, E_t) and edges (G, 2, E)."""
        nodes = vertex.shape[1]
        table = pairwise_table(edge.float(), s, t, nodes)
        itself = table.diagonal(dim1=1, dim2=2)  # loops of s on loops of t: as good as vertices
        flat = vertex.float().flatten(1) + itself / 2
        itself.zero_()
        return cls(flat, table.flatten(0, 1), nodes)

    def run(self, first: Tensor, starts: int) -> Tensor:
        """Best permutation found, never worse than ``first``.

        Args:
            first: (G, N) the first start; the others are the barycentre and random permutations.
            starts: number of starts M per graph.

        Returns:
            (G, N).
        """
        graphs, nodes = first.shape
        # A fixed seed: the same affinities always give the same matching.
        generator = torch.Generator().manual_seed(0)
        drawn = torch.rand(max(starts - 2, 0), nodes, generator=generator).argsort(dim=-1)
        begin = torch.cat([first[:, None], drawn.expand(graphs, *drawn.shape)], dim=1).flatten(0, 1)
        owner = torch.arange(graphs).repeat_interleave(1 + len(drawn))
        climb = _Climb.at(self, owner, begin)
        if starts > 1:
            climb = climb.joined(_Climb.centre(self))
        best = first[climb.owner]  # (G M, N)
        value = self.value(best, self.pull(climb.owner, best), climb.owner)
        rows = torch.arange(len(best))
        for _ in range(_MOST_STEPS):
            corner, reached, climb, goes_on = climb.step(self)
            better = reached > value[rows]
            value[rows] = torch.maximum(value[rows], reached)
            best[rows[better]] = corner[better]
            rows = rows[goes_on]
            if len(rows) == 0:
                break
        owner = torch.cat([owner, torch.arange(graphs)]) if starts > 1 else owner
        best, value = self._swapped(owner, best, value)
        top = torch.full((graphs,), -torch.inf).scatter_reduce(0, owner, value, "amax")
        winner = (value == top[owner]).nonzero()[:, 0].flip(0)
        return best[torch.zeros(graphs, dtype=torch.long).scatter(0, owner[winner], winner)]

    def cells(self, permutation: Tensor) -> Tensor:
        """Flat positions (K, N) of the ones of permutations (K, N)."""
        return permutation + torch.arange(self.nodes) * self.nodes

    def pull(self, owner: Tensor, permutation: Tensor) -> Tensor:
        """H v of permutations (K, N) of graphs (K,): the sum of N rows of H, (K, N * N)."""
        rows = self.cells(permutation) + owner[:, None] * self.nodes**2
        return functional.embedding_bag(rows, self.table, mode="sum")

    def value(self, permutation: Tensor, pull: Tensor, owner: Tensor) -> Tensor:
        """Objective (K,) of permutations (K, N) with their pull."""
        cells = self.cells(permutation)
        return (self.vertex[owner].gather(1, cells) + pull.gather(1, cells) / 2).sum(dim=1)

    def _swapped(self, owner: Tensor, best: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Swap the best pair of each permutation until no swap improves any."""
        nodes = self.nodes
        i, j = torch.triu_indices(nodes, nodes, offset=1)  # each (P,)
        rows = torch.arange(len(best) if nodes > 1 else 0)
        for _ in range(nodes**2):
            if len(rows) == 0:
                break
            p, graph = best[rows], owner[rows]
            slope = self.vertex[graph] + self.pull(graph, p)
            ia, jb, ib, ja = (x * nodes + p[:, y] for x, y in ((i, i), (j, j), (i, j), (j, i)))  # (K, P)
            change = slope.gather(1, ib) + slope.gather(1, ja) - slope.gather(1, ia) - slope.gather(1, jb)
            base = graph[:, None] * nodes**2
            for one, other in ((ia, jb), (ib, ja)):
                change += self.table.view(-1)[(base + one) * nodes**2 + other]
            gain, pair = change.max(dim=1)
            better = gain > _NO_GAIN * (1 + value[rows].abs())
            rows, pair = rows[better], pair[better]
            value[rows] += gain[better]
            first, second = i[pair], j[pair]
            best[rows, first], best[rows, second] = best[rows, second], best[rows, first]
        return best, value


@dataclass(frozen=True)
class _Climb:
    """Soft assignments v of K starts, as all that a step needs of them."""

    owner: Tensor  # (K,) graph
    slope: Tensor  # (K, N * N) vertex + H v
    linear: Tensor  # (K,) <vertex, v>
    square: Tensor  # (K,) v H v

    @classmethod
    def at(cls, search: Search, owner: Tensor, permutation: Tensor) -> _Climb:
        vertex, pull, cells = search.vertex[owner], search.pull(owner, permutation), search.cells(permutation)
        return cls(owner, vertex + pull, vertex.gather(1, cells).sum(1), pull.gather(1, cells).sum(1))

    @classmethod
    def centre(cls, search: Search) -> _Climb:
        graphs, nodes = len(search.vertex), search.nodes
        pull = search.table.view(graphs, nodes**2, nodes**2).sum(dim=1) / nodes
        return cls(
            torch.arange(graphs), search.vertex + pull, search.vertex.sum(1) / nodes, pull.sum(1) / nodes
        )

    def joined(self, other: _Climb) -> _Climb:
        return _Climb(
            *(torch.cat([getattr(self, name), getattr(other, name)]) for name in self.__dataclass_fields__)
        )

    def step(self, search: Search) -> tuple[Tensor, Tensor, _Climb, Tensor]:
        """Corners (K, N), their objective, the climbs that go on, and which (K,) these are."""
        nodes = search.nodes
        corner = assign(self.slope.view(-1, nodes, nodes))
        cells, vertex = search.cells(corner), search.vertex[self.owner]
        pull = search.pull(self.owner, corner)
        linear, square = vertex.gather(1, cells).sum(1), pull.gather(1, cells).sum(1)
        along = self.slope.gather(1, cells).sum(1)
        mixed = along - linear  # u H v
        # Along v + r (u - v) the objective is gain * r + bend * r^2.
        gain = along - self.linear - self.square
        bend = (square - 2 * mixed + self.square) / 2
        r = torch.where(bend < 0, -gain / (2 * bend), 1.0).clamp(max=1)
        goes_on = gain > _NO_GAIN * (1 + self.linear.abs() + self.square.abs())
        moved = _Climb(
            self.owner[goes_on],
            torch.lerp(self.slope, vertex + pull, r[:, None])[goes_on],
            (self.linear + r * (linear - self.linear))[goes_on],
            (self.square + 2 * r * (mixed - self.square) + 2 * r.square() * bend)[goes_on],
        )
        return corner, linear + square / 2, moved, goes_on


def _is_repeated(edges: Tensor, nodes: int) -> bool:
    cells = (edges[:, 0] * nodes + edges[:, 1]).sort(dim=1).values
    return bool((cells[:, 1:] == cells[:, :-1]).any())
