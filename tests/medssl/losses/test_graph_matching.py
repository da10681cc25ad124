from __future__ import annotations

import pytest
import torch

from medssl.losses.graph_matching import edge_affinity, graph_match, hamming
from medssl.losses.matching import solve_qap
from medssl.nets.graph import knn_graph


def leaves(graphs):
    vertex, edge, es, et = graphs
    return vertex.clone().requires_grad_(), edge.clone().requires_grad_(), es, et


def test_reference_gradient(graphs):
    vertex, edge, es, et = leaves(graphs)
    v = graph_match(vertex, edge, es, et)
    loss = hamming(v).sum()
    assert loss.item() == 8
    loss.backward()
    expected = torch.zeros(4, 4).double()
    expected[range(4), [1, 2, 3, 0]] = 0.0125
    expected[range(4), range(4)] = -0.0125
    torch.testing.assert_close(vertex.grad[0], expected)
    assert set(edge.grad.unique().tolist()) <= {-0.0125, 0.0, 0.0125}
    assert (edge.grad != 0).any()


def test_edges_of_the_reference_are_those_of_the_two_nearest(reference, graphs):
    """C.8 lists them; the nearest comes first."""
    for z, edges in ((reference.features[None, :4], graphs[2]), (reference.features[None, 4:8], graphs[3])):
        torch.testing.assert_close(knn_graph(z, 2)[0], edges)


def test_the_gradient_of_an_edge_is_that_of_how_often_it_is_matched(graphs):
    """Equation of C.3 written out: (matched at once - matched after the push towards the truth) / lambda."""
    vertex, edge, es, et = leaves(graphs)
    at_once = graph_match(vertex, edge, es, et).argmax(dim=2)[0]
    hamming(graph_match(vertex, edge, es, et)).sum().backward()
    towards = vertex.detach() - 80.0 * (1 - 2 * torch.eye(4).double())
    pushed = solve_qap(towards, edge.detach(), es, et)[0]
    expected = torch.zeros_like(edge)
    for a in range(es.shape[1]):
        for b in range(et.shape[1]):
            ends = [(int(es[end, a]), int(et[end, b])) for end in (0, 1)]
            matched = [all(int(p[s]) == t for s, t in ends) for p in (at_once, pushed)]
            expected[0, a, b] = (matched[0] - matched[1]) / 80.0
    assert {-0.0125, 0.0125} <= set(expected.unique().tolist())
    torch.testing.assert_close(edge.grad, expected)


def test_first_order_matching_does_not_learn_from_edges(graphs):
    vertex, edge, es, et = leaves(graphs)
    v = graph_match(vertex, edge, es, et, method="lap")
    torch.testing.assert_close(v, graph_match(vertex, -edge, es, et, method="lap"))
    hamming(v).sum().backward()
    assert edge.grad is None
    assert (vertex.grad != 0).any() == (v.argmax(dim=2) != torch.arange(4)).any()


def test_rows_and_columns_of_the_gradient_cancel(graphs):
    vertex, edge, es, et = leaves(graphs)
    hamming(graph_match(vertex, edge, es, et)).sum().backward()
    torch.testing.assert_close(vertex.grad.sum(dim=1), torch.zeros(1, 4).double())
    torch.testing.assert_close(vertex.grad.sum(dim=2), torch.zeros(1, 4).double())


def test_a_step_down_raises_the_true_affinity(graphs):
    vertex, edge, es, et = leaves(graphs)
    hamming(graph_match(vertex, edge, es, et)).sum().backward()
    moved = vertex.detach() - vertex.grad
    assert moved.diagonal(dim1=1, dim2=2).sum() > vertex.diagonal(dim1=1, dim2=2).sum()


def test_right_matching_has_no_loss_and_no_gradient(reference):
    z = reference.features[None, :4]
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    vertex = (z @ z.mT).requires_grad_()
    edge = edge_affinity(z, z, edges, edges).requires_grad_()
    loss = hamming(graph_match(vertex, edge, edges, edges)).sum()
    loss.backward()
    assert loss.item() == 0
    assert (vertex.grad == 0).all()
    assert (edge.grad == 0).all()


@pytest.mark.parametrize("factor", [3.0, 65536.0, 1e-3])
def test_backward_is_homogeneous(graphs, factor):
    gradients = []
    for weight in (1.0, factor):
        vertex, edge, es, et = leaves(graphs)
        (weight * hamming(graph_match(vertex, edge, es, et)).sum()).backward()
        gradients.append((vertex.grad, edge.grad))
    for one, scaled in zip(*gradients, strict=True):
        torch.testing.assert_close(factor * one, scaled)


def test_gradient_does_not_depend_on_the_number_of_graphs(graphs):
    vertex, edge, es, et = leaves(graphs)
    hamming(graph_match(vertex, edge, es, et)).mean().backward()
    many = [a.detach().expand(4, *a.shape[1:]).clone().requires_grad_() for a in (vertex, edge)]
    hamming(graph_match(*many, es, et)).mean().backward()
    torch.testing.assert_close(many[0].grad.sum(dim=0), vertex.grad[0])
    torch.testing.assert_close(many[1].grad.sum(dim=0), edge.grad[0])


def test_noise_comes_from_the_generator(graphs):
    vertex, edge, es, et = graphs
    many = vertex.expand(64, 4, 4), edge.expand(64, 8, 8)
    first, same, other = (
        graph_match(*many, es, et, gumbel_scale=1.0, generator=torch.Generator().manual_seed(s))
        for s in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert len(first.unique(dim=0)) > 3
    assert torch.equal(first.sum(dim=1), torch.ones(64, 4).double())
    with pytest.raises(ValueError, match="generator"):
        graph_match(vertex, edge, es, et, gumbel_scale=1.0)


@pytest.mark.parametrize(("scale", "expected"), [(0.1, 1.0), (0.25, 0.91), (0.5, 0.37), (1.0, 0.16)])
def test_noise_acts_as_a_temperature(scale, expected):
    """Rows matched in the first order where images are told apart by 1 (C.3)."""
    graphs, nodes = 400, 16
    vertex = torch.eye(nodes).expand(graphs, nodes, nodes)
    none = torch.zeros(2, 0, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    v = graph_match(
        vertex, torch.zeros(graphs, 0, 0), none, none, gumbel_scale=scale, generator=generator, method="lap"
    )
    assert (v * vertex).sum(dim=2).mean().item() == pytest.approx(expected, abs=0.04)


def test_a_shuffled_view_has_the_loss_of_its_shuffle(graphs):
    """Found and judged in another order of the images of t, loss and gradient are as before (C.7, law 2)."""
    vertex, edge, es, et = graphs
    order = torch.tensor([2, 0, 3, 1])
    place = order.argsort()
    results = []
    for shuffle in (False, True):
        v_in, e_in = vertex.clone().requires_grad_(), edge.clone().requires_grad_()
        target = torch.eye(4)[None]
        if shuffle:
            v = graph_match(v_in[..., order], e_in, es, place[et])
            target = target[..., order]
        else:
            v = graph_match(v_in, e_in, es, et)
        loss = hamming(v, target).sum()
        loss.backward()
        results.append((loss.detach(), v_in.grad, e_in.grad))
    assert results[0][0] == 8
    torch.testing.assert_close(results[1], results[0])


def test_hamming_counts_wrong_rows_twice():
    eye = torch.eye(5)
    orders = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [1, 2, 0, 3, 4], [1, 2, 3, 4, 0]])
    assert hamming(eye[orders]).tolist() == [0, 4, 6, 10]
    assert hamming(eye[orders], eye[orders]).tolist() == [0, 0, 0, 0]


def test_reversing_all_edges_keeps_their_affinity(reference):
    zs, zt = reference.features[None, :4], reference.features[None, 4:8]
    es, et = torch.tensor([[0, 1, 2], [2, 3, 1]]), torch.tensor([[1, 3], [0, 2]])
    torch.testing.assert_close(edge_affinity(zs, zt, es, et), edge_affinity(zs, zt, es.flip(0), et.flip(0)))


def test_reference_affinities(graphs):
    vertex, edge, _, _ = graphs
    rows = [[0.007472, 0.933087, -0.413677, -0.105212], [0.313759, -0.281164, 0.993898, -0.809704]]
    torch.testing.assert_close(vertex[0, :2], torch.tensor(rows).double(), atol=1e-6, rtol=0)
    row = [-0.251040, 0.704865, 0.922835, 0.326323, 0.251040, -0.150733, -0.704865, -0.922835]
    torch.testing.assert_close(edge[0, 0], torch.tensor(row).double(), atol=1e-6, rtol=0)


# Where lam is not small, the estimator is the mean of the true gradient on the way from vertex to
# vertex - lam g: longer at 0.5; at 80 every way ends at the same matching, and the direction alone is left.
@pytest.mark.parametrize(("lam", "ratio", "within"), [(0.1, 1.0, 0.05), (0.5, 1.15, 0.1), (80.0, 0.0, 0.05)])
def test_mean_gradient_points_downhill(lam, ratio, within):
    """The average over many noise draws agrees in direction with a finite difference of the expected loss."""
    draws, nodes, step = 4096, 3, 0.2
    generator = torch.Generator().manual_seed(0)
    base = 0.5 * torch.rand(1, nodes, nodes, generator=generator, dtype=torch.float64)
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    edge = torch.zeros(1, 3, 3, dtype=torch.float64)

    def losses(vertex):
        noise = torch.Generator().manual_seed(1)
        v = graph_match(
            vertex.expand(draws, nodes, nodes),
            edge.expand(draws, 3, 3),
            edges,
            edges,
            lam,
            1.0,
            noise,
            method="lap",
        )
        return hamming(v).mean()

    leaf = base.clone().requires_grad_()
    losses(leaf).backward()
    numeric = torch.zeros_like(base)
    for i in range(nodes):
        for j in range(nodes):
            shift = torch.zeros_like(base)
            shift[0, i, j] = step
            numeric[0, i, j] = (losses(base + shift) - losses(base - shift)) / (2 * step)
    cosine = torch.nn.functional.cosine_similarity(leaf.grad.flatten(), numeric.flatten(), dim=0)
    assert cosine > 0.95
    assert (leaf.grad.norm() / numeric.norm()).item() == pytest.approx(ratio, abs=within)


def test_solution_is_the_forward_value(graphs):
    vertex, edge, es, et = graphs
    v = graph_match(vertex, edge, es, et)
    assert torch.equal(v.argmax(dim=2), solve_qap(vertex, edge, es, et))
