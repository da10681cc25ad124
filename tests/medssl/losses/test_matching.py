from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from medssl.losses.graph_matching import edge_affinity
from medssl.losses.matching import first_order_suffices, qap_objective, solve_qap

CHAIN = torch.tensor([[0, 1, 2], [1, 2, 3]])
CHAIN_AND_LOOP = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 3]])


def knn(z: Tensor, k: int) -> Tensor:
    """(G, 2, N k) directed edges from each node to its nearest neighbours."""
    distance = torch.cdist(z, z) + torch.diag_embed(torch.full(z.shape[:2], torch.inf))
    near = distance.topk(k, largest=False).indices.flatten(1)
    start = torch.arange(z.shape[1]).repeat_interleave(k).expand_as(near)
    return torch.stack([start, near], dim=1)


def instances(count: int, noise: float, nodes: int = 7, k: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Graphs of embeddings and their noisy copies, with Gumbel noise on the affinities."""
    generator = torch.Generator().manual_seed(1)
    zs = torch.randn(count, nodes, 8, generator=generator)
    zt = zs + 0.5 * torch.randn(zs.shape, generator=generator)
    es, et = knn(zs, k), knn(zt, k)
    normal = torch.nn.functional.normalize
    vertex = normal(zs, dim=-1) @ normal(zt, dim=-1).mT
    edge = edge_affinity(zs, zt, es, et)
    vertex, edge = (
        a - noise * torch.rand(a.shape, generator=generator).log().neg().log() for a in (vertex, edge)
    )
    return vertex, edge, es, et


@pytest.mark.parametrize("method", ["brute", "ipfp"])
def test_published_toy(method):
    """Costs 0..15 and quadratic costs -10..-18 on a chain of four: the identity, at cost -12."""
    vertex = -torch.arange(16.0).reshape(1, 4, 4)
    edge = torch.arange(10.0, 19).reshape(1, 3, 3)
    assert solve_qap(vertex, edge, CHAIN, CHAIN, method).tolist() == [[0, 1, 2, 3]]
    others = torch.tensor([[0, 1, 2, 3], [3, 0, 1, 2], [2, 3, 0, 1], [1, 2, 3, 0]])
    costs = [-qap_objective(vertex, edge, CHAIN, CHAIN, p[None]).item() for p in others]
    assert costs == [-12, 0, 2, 4]


def test_reference_instance(graphs):
    vertex, edge, es, et = graphs
    assert solve_qap(vertex, edge, es, et, "lap").tolist() == [[1, 0, 3, 2]]
    for method in ("brute", "ipfp"):
        best = solve_qap(vertex, edge, es, et, method)
        assert best.tolist() == [[1, 2, 3, 0]]
    assert qap_objective(vertex, edge, es, et, best).item() == pytest.approx(5.659936, abs=1e-6)
    first = torch.tensor([[1, 0, 3, 2]])
    alone = qap_objective(vertex, 0 * edge, es, et, first)
    assert alone.item() == pytest.approx(2.401083, abs=1e-6)


@pytest.mark.parametrize(("noise", "starts", "share"), [(0.0, 3, 0.99), (0.1, 3, 0.99), (1.0, 10, 0.99)])
def test_ipfp_is_nearly_as_good_as_brute_force(noise, starts, share):
    problem = instances(40, noise)
    best, lap = (qap_objective(*problem, solve_qap(*problem, method)) for method in ("brute", "lap"))
    found = qap_objective(*problem, solve_qap(*problem, "ipfp", starts=starts))
    assert (found <= best + 1e-5).all()
    assert (found >= lap - 1e-5).all()
    assert found.mean() >= share * best.mean()


def test_second_order_resolves_a_tie():
    """Nodes 0 and 1 look alike; only their neighbours tell them apart."""
    vertex = torch.zeros(1, 4, 4)
    vertex[0, 2, 3] = vertex[0, 3, 2] = 5
    edges = torch.tensor([[0, 1], [2, 3]])
    edge = torch.ones(1, 2, 2)
    assert solve_qap(vertex, edge, edges, edges, "ipfp").tolist() == [[1, 0, 3, 2]]


def test_permuting_a_graph_permutes_the_solution():
    vertex, edge, es, et = instances(12, 0.0)
    solution = solve_qap(vertex, edge, es, et, "brute")
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4])
    moved = solve_qap(vertex[:, :, order], edge, es, order.argsort()[et], "ipfp")
    assert torch.equal(order[moved], solution)


def test_graphs_do_not_influence_each_other_and_results_repeat():
    vertex, edge, es, et = instances(6, 1.0)
    together = solve_qap(vertex, edge, es, et)
    assert torch.equal(together, solve_qap(vertex, edge, es, et))
    assert torch.equal(together.sort(dim=1).values, torch.arange(7).expand(6, 7))
    for graph in range(6):
        one = slice(graph, graph + 1)
        assert torch.equal(solve_qap(vertex[one], edge[one], es[one], et[one]), together[one])


def test_shared_edges_equal_repeated_edges():
    generator = torch.Generator().manual_seed(0)
    vertex, edge = torch.randn(3, 4, 4, generator=generator), torch.randn(3, 3, 3, generator=generator)
    repeated = CHAIN.expand(3, 2, 3)
    assert torch.equal(solve_qap(vertex, edge, CHAIN, CHAIN), solve_qap(vertex, edge, repeated, repeated))


def test_single_node():
    none = torch.zeros(2, 0, dtype=torch.long)
    assert solve_qap(torch.ones(2, 1, 1), torch.zeros(2, 0, 0), none, none).tolist() == [[0], [0]]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="vertex"):
        solve_qap(torch.zeros(1, 3, 4), torch.zeros(1, 3, 3), CHAIN, CHAIN)
    with pytest.raises(ValueError, match="edge"):
        solve_qap(torch.zeros(1, 4, 4), torch.zeros(1, 3, 2), CHAIN, CHAIN)
    with pytest.raises(ValueError, match="ipfp"):
        solve_qap(torch.zeros(1, 9, 9), torch.zeros(1, 3, 3), CHAIN, CHAIN, "brute")


def pushed(count: int, nodes: int, k: int, lam: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The perturbed problems of the backward pass: the identity is made better by 2 lam per node."""
    vertex, edge, es, et = instances(count, 1.0, nodes, k)
    return vertex - lam * (1 - 2 * torch.eye(nodes)), edge, es, et


@pytest.mark.parametrize("lam", [2.0, 5.0, 10.0, 20.0])
def test_a_permutation_that_is_claimed_to_be_the_best_is(lam):
    problem = pushed(200, 5, 2, lam)
    first = solve_qap(*problem, "lap")
    claimed = first_order_suffices(*problem, first)
    if lam >= 10:
        assert claimed.float().mean() > 0.5
    assert torch.equal(solve_qap(*problem, "brute")[claimed], first[claimed])
    other = first.roll(1, dims=1)  # every node elsewhere: the objective is worse
    assert not first_order_suffices(*problem, other).any()


def test_the_claim_is_made_for_all_problems_of_the_published_backward_pass():
    """16 nodes of 5 neighbours, noise 1, lam 80; and the search then finds the same."""
    problem = pushed(100, 16, 5, 80.0)
    identity = torch.arange(16).expand(100, 16)
    assert first_order_suffices(*problem, identity).float().mean() >= 0.95
    assert torch.equal(solve_qap(*problem, starts=1), identity)
    assert torch.equal(solve_qap(*problem, shortcut=True), identity)


def test_the_shortcut_is_not_taken_where_edges_decide():
    problem = instances(40, 0.1)
    plain, short = (solve_qap(*problem, shortcut=shortcut) for shortcut in (False, True))
    assert torch.equal(plain, short)
    assert not first_order_suffices(*problem, solve_qap(*problem, "lap")).any()


def test_nothing_is_claimed_where_an_edge_occurs_twice():
    vertex, twice = 100 * torch.eye(4)[None], torch.tensor([[0, 0, 1], [1, 1, 2]])
    identity = torch.arange(4)[None]
    assert first_order_suffices(vertex, torch.ones(1, 3, 3), CHAIN, CHAIN, identity).all()
    assert not first_order_suffices(vertex, torch.ones(1, 3, 3), CHAIN, twice, identity).any()


@pytest.mark.parametrize(
    "edges", [[[0, 0, 1, 2], [1, 1, 2, 0]], [[0, 1, 1, 3], [0, 1, 2, 3]]], ids=["repeated", "loops"]
)
def test_repeated_edges_add_up_and_loops_count_as_vertices(edges):
    generator = torch.Generator().manual_seed(0)
    index = torch.tensor(edges)
    problem = torch.randn(30, 4, 4, generator=generator), torch.randn(30, 4, 4, generator=generator)
    best, found = (
        qap_objective(
            *problem, index, CHAIN_AND_LOOP, solve_qap(*problem, index, CHAIN_AND_LOOP, m, starts=6)
        )
        for m in ("brute", "ipfp")
    )
    torch.testing.assert_close(found, best)
    by_hand = torch.stack([by_definition(*(x[g] for x in problem), index, CHAIN_AND_LOOP) for g in range(30)])
    torch.testing.assert_close(best, by_hand.double())


def by_definition(vertex: Tensor, edge: Tensor, es: Tensor, et: Tensor) -> Tensor:
    """The best value over all permutations, edge by edge."""
    best = -torch.inf
    for p in permutations(range(len(vertex))):
        value = sum(vertex[i, a] for i, a in enumerate(p))
        for e, (i, j) in enumerate(es.T.tolist()):
            for f, (a, b) in enumerate(et.T.tolist()):
                value = value + edge[e, f] * ((p[i], p[j]) == (a, b))
        best = max(best, float(value))
    return torch.tensor(best)
