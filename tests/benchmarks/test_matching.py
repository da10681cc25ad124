"""Second-order matching of many small graphs, against one graph at a time in NumPy."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from medssl.losses.graph_matching import edge_affinity, graph_match, hamming
from medssl.losses.matching import qap_objective, solve_qap
from medssl.methods import METHODS, lvm_med
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import build_encoder
from medssl.nets.graph import knn_graph
from medssl.protocols import Batch

pytestmark = pytest.mark.benchmark

GRAPHS, NODES, NEIGHBOURS, DIM = 200, 16, 5, 128
IMAGES, SIDE, GPU_ROUNDS = 192, 224, 10
LAM, NOISE, STARTS, STEPS, ROUNDS = 80.0, 1.0, 10, 20, 2

Array = NDArray[np.float64]


def affinities() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy affinities of embeddings and their disturbed copies, as LVM-Med has them."""
    generator = torch.Generator().manual_seed(0)
    zs = torch.randn(GRAPHS, NODES, DIM, generator=generator)
    zt = zs + torch.randn(zs.shape, generator=generator)
    es, et = knn_graph(zs, NEIGHBOURS), knn_graph(zt, NEIGHBOURS)
    normal = torch.nn.functional.normalize
    vertex, edge = normal(zs, dim=-1) @ normal(zt, dim=-1).mT, edge_affinity(zs, zt, es, et)
    vertex, edge = (
        a - NOISE * torch.empty(a.shape).exponential_(generator=generator).log() for a in (vertex, edge)
    )
    return vertex, edge, es, et


@dataclass
class OneGraph:
    """Integer projected fixed point on one pair of graphs, as one writes it in NumPy.

    Contraction: the 80 x 80 edge affinities times the assignment gathered at their ends, scattered to their
    other ends. Starts, steps, stopping rule and final swaps are the solver's.
    """

    vertex: Array
    edge: Array
    s: NDArray[np.int64]
    t: NDArray[np.int64]

    def __post_init__(self) -> None:
        self.n = len(self.vertex)
        self.flat = self.vertex.ravel()
        begin, end = (self.s[k][:, None] * self.n + self.t[k][None, :] for k in (0, 1))
        table = np.zeros((self.n**2, self.n**2))
        table[begin, end] = self.edge
        self.table = table + table.T

    def pull(self, v: Array) -> Array:
        grid, pull = v.reshape(self.n, self.n), np.zeros((self.n, self.n))
        for near, far in ((0, 1), (1, 0)):
            there = self.edge * grid[self.s[far][:, None], self.t[far][None, :]]
            np.add.at(pull, (self.s[near][:, None], self.t[near][None, :]), there)
        return pull.ravel()

    def assign(self, affinity: Array) -> NDArray[np.int64]:
        return linear_sum_assignment(affinity.reshape(self.n, self.n), maximize=True)[1]

    def one_hot(self, p: NDArray[np.int64]) -> Array:
        return np.eye(self.n)[p].ravel()

    def climb(self, v: Array, best: NDArray[np.int64], value: float) -> tuple[NDArray[np.int64], float]:
        pull = self.pull(v)
        for _ in range(STEPS):
            slope = self.flat + pull
            corner = self.assign(slope)
            u = self.one_hot(corner)
            pull_u = self.pull(u)
            reached = u @ (self.flat + pull_u / 2)
            if reached > value:
                best, value = corner, reached
            gain = slope @ (u - v)
            if gain <= 1e-9:
                break
            bend = (u - v) @ (pull_u - pull) / 2
            step = min(1.0, -gain / (2 * bend)) if bend < 0 else 1.0
            v, pull = v + step * (u - v), pull + step * (pull_u - pull)
        return self.swap(best, value)

    def swap(self, p: NDArray[np.int64], value: float) -> tuple[NDArray[np.int64], float]:
        i, j = np.triu_indices(self.n, 1)
        while True:
            slope = self.flat + self.pull(self.one_hot(p))
            ia, jb, ib, ja = i * self.n + p[i], j * self.n + p[j], i * self.n + p[j], j * self.n + p[i]
            change = slope[ib] + slope[ja] - slope[ia] - slope[jb] + self.table[ia, jb] + self.table[ib, ja]
            top = change.argmax()
            if change[top] <= 1e-9:
                return p, value
            p = p.copy()
            p[i[top]], p[j[top]] = p[j[top]], p[i[top]]
            value += change[top]

    def solve(self) -> NDArray[np.int64]:
        first = self.assign(self.flat)
        v = self.one_hot(first)
        value = v @ (self.flat + self.pull(v) / 2)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.rand(STARTS - 2, self.n, generator=generator).argsort(dim=-1).numpy()
        begin = [v, np.full(self.n**2, 1 / self.n), *(self.one_hot(p) for p in drawn)]
        return max((self.climb(one, first, value) for one in begin), key=lambda found: found[1])[0]


class OneDenseGraph(OneGraph):
    """The same with one product with the dense table of pairs of cells: the faster one at 16 nodes."""

    def pull(self, v: Array) -> Array:
        return self.table @ v


def hit(p: NDArray[np.int64], s: NDArray[np.int64], t: NDArray[np.int64]) -> Array:
    """Which edge of s goes to which edge of t."""
    same = (p[s[0]][:, None] == t[0]) & (p[s[1]][:, None] == t[1])
    return same.astype(float)


def one_by_one(
    kind: type[OneGraph], vertex: Array, edge: Array, s: NDArray[np.int64], t: NDArray[np.int64]
) -> tuple[Array, ...]:
    """Matchings of all graphs and both gradients of their mean distance from the identity."""
    eye = np.eye(NODES)
    found, vertex_gradient, edge_gradient = [], [], []
    for one, pair, es, et in zip(vertex, edge, s, t, strict=True):
        p = kind(one, pair, es, et).solve()
        q = kind(one - LAM * (1 - 2 * eye), pair, es, et).solve()
        found.append(p)
        vertex_gradient.append((eye[p] - eye[q]) / LAM / GRAPHS)
        edge_gradient.append((hit(p, es, et) - hit(q, es, et)) / LAM / GRAPHS)
    return np.stack(found), np.stack(vertex_gradient), np.stack(edge_gradient)


def test_matching_is_ten_times_as_fast_as_graph_by_graph(figures) -> None:
    vertex, edge, es, et = affinities()
    arrays = [x.numpy() for x in (vertex.double(), edge.double(), es, et)]
    leaves = vertex.clone().requires_grad_(), edge.clone().requires_grad_()

    def ours() -> Tensor:
        leaves[0].grad = leaves[1].grad = None
        v = graph_match(*leaves, es, et, LAM, starts=STARTS, shortcut=True)
        hamming(v).mean().backward()
        return v.detach()

    kinds = (OneGraph, OneDenseGraph)
    ratios: list[list[float]] = [[], []]
    for number in range(ROUNDS + 1):
        seconds = []
        for work in (*(partial(one_by_one, kind, *arrays) for kind in kinds), ours):
            begun = time.process_time()
            work()
            seconds.append(time.process_time() - begun)
        if number:
            for ratio, taken in zip(ratios, seconds[:-1], strict=True):
                ratio.append(taken / seconds[-1])
    # as good as the reference, and the same gradient wherever the matching is the same
    found, vertex_gradient, edge_gradient = one_by_one(OneDenseGraph, *arrays)
    v = ours()
    problem = vertex, edge, es, et
    mine, theirs = (qap_objective(*problem, p) for p in (v.argmax(dim=2), torch.from_numpy(found)))
    assert mine.mean() >= 0.999 * theirs.mean()
    same = (v.argmax(dim=2).numpy() == found).all(axis=1)
    assert same.mean() > 0.5
    for leaf, gradient in zip(leaves, (vertex_gradient, edge_gradient), strict=True):
        np.testing.assert_allclose(leaf.grad.numpy()[same], gradient[same], atol=1e-7)
    for name, ratio, limit in (("gather and scatter", ratios[0], 10), ("dense table", ratios[1], 2)):
        figures.at_least(
            f"graph matching and backward, 200 graphs of 16, against {name}",
            statistics.median(ratio),
            limit,
            "x",
            reference="per-graph NumPy IPFP, SciPy assignment, same starts and steps; CPU time",
            runs=ROUNDS,
        )


def test_the_shortcut_changes_nothing() -> None:
    vertex, edge, es, et = affinities()
    pushed = vertex - LAM * (1 - 2 * torch.eye(NODES))
    assert torch.equal(solve_qap(pushed, edge, es, et), solve_qap(pushed, edge, es, et, shortcut=True))


@pytest.mark.gpu
def test_on_a_gpu_matching_is_at_most_a_quarter_of_the_step(figures, seconds, monkeypatch) -> None:
    """LVM-Med as it is by default on a ResNet-50: 12 graphs of 16 images of 224 px."""
    torch.manual_seed(0)
    entry = METHODS["lvm-med"]
    backbone = Backbone(build_encoder("resnet50", 2, 1))
    method = entry.build(entry.config_class()(nodes=NODES), backbone, 2).cuda().train()
    batch = Batch(
        image=torch.rand(IMAGES, 1, SIDE, SIDE),
        spacing=torch.ones(IMAGES, 2),
        modality=torch.arange(IMAGES) % 2,
        index=torch.arange(IMAGES),
    ).to("cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    seen = []

    def recorded(*arguments, **settings):
        seen.append((arguments, settings))
        return graph_match(*arguments, **settings)

    monkeypatch.setattr(lvm_med, "graph_match", recorded)

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            total = method(method.views(batch, generator), 0).total
        total.backward()

    def match() -> None:
        (vertex, edge, *rest), settings = seen[0]
        leaves = (x.detach().requires_grad_() for x in (vertex, edge))
        hamming(graph_match(*leaves, *rest, **settings)).mean().backward()

    for _ in range(3):
        step()
    step_s, match_s = seconds(step, match, runs=GPU_ROUNDS, wait=torch.cuda.synchronize)
    gpu = torch.cuda.get_device_name()
    figures.at_most(
        "graph matching and backward on a GPU, 12 graphs of 16",
        match_s / step_s,
        0.25,
        "x",
        reference=f"training step of their {IMAGES} images on a ResNet-50, bf16; {gpu}",
        runs=GPU_ROUNDS,
    )
