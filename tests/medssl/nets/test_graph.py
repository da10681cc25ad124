from __future__ import annotations

import pytest
import torch

from medssl.nets.graph import MessagePassing, knn_graph, propagation

RING = torch.tensor([[[0, 1, 2], [1, 2, 0]]])


def test_every_node_has_k_edges_to_its_nearest_others():
    z = torch.tensor([[0.0], [1.0], [3.0], [7.0]]).expand(2, 4, 1)
    edges = knn_graph(z, 2)
    assert edges.shape == (2, 2, 8)
    assert edges[0].tolist() == [[0, 0, 1, 1, 2, 2, 3, 3], [1, 2, 0, 2, 1, 0, 2, 1]]
    assert torch.equal(edges[0], edges[1])


def test_there_are_no_loops_and_no_more_neighbours_than_nodes():
    z = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0))
    start, end = knn_graph(z, 50).unbind(1)
    assert start.shape == (5, 6 * 5)
    assert (start != end).all()
    pairs = (start * 6 + end).sort(dim=1).values
    assert (pairs[:, 1:] != pairs[:, :-1]).all()


def test_neighbours_of_equal_nodes_are_taken_by_number():
    assert knn_graph(torch.zeros(1, 4, 2), 2)[0, 1].tolist() == [1, 2, 0, 2, 0, 1, 0, 1]


def test_permuting_the_nodes_permutes_the_graph():
    z = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4])
    plain, moved = knn_graph(z, 3), order[knn_graph(z[:, order], 3)]
    assert {tuple(e) for e in plain[0].T.tolist()} == {tuple(e) for e in moved[0].T.tolist()}


def test_a_directed_ring_averages_node_and_neighbour():
    expected = torch.tensor([[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]])
    torch.testing.assert_close(propagation(RING, 3)[0], expected)
    torch.testing.assert_close(propagation(RING, 3, "paper")[0], 2 * expected)
    torch.testing.assert_close(propagation(RING, 3, "root")[0], 2 * expected - torch.eye(3))


def test_equal_nodes_stay_equal_and_nothing_flows_between_graphs():
    torch.manual_seed(0)
    net = MessagePassing(4, 8)
    x = torch.randn(1, 4).expand(3, 5, 4).clone()
    edges = knn_graph(torch.randn(3, 5, 2), 2)
    out = net(x, edges)
    assert out.shape == (3, 5, 8)
    torch.testing.assert_close(out, out[:1, :1].expand(3, 5, 8))
    x[0] += 1
    torch.testing.assert_close(net(x, edges)[1:], out[1:])


@pytest.mark.parametrize("convolution", ["root", "self"])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_layers_are_averages_of_linear_maps(layers, convolution):
    torch.manual_seed(0)
    net = MessagePassing(3, 4, layers, convolution)
    x = torch.randn(1, 3, 3)
    expected = x
    for number, around in enumerate(net.around):
        passed = propagation(RING, 3, convolution) @ expected @ around.weight.T
        expected = passed + (net.own[number](expected) if convolution == "root" else 0)
        expected = expected.relu() if number < layers - 1 else expected
    torch.testing.assert_close(net(x, RING), expected)
    assert net.out_channels == (4 if layers else 3)


@pytest.mark.parametrize(("convolution", "equal"), [("self", True), ("root", False)])
def test_only_weights_of_their_own_keep_the_nodes_of_a_clique_apart(convolution, equal):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 4)
    out = MessagePassing(4, 8, convolution=convolution)(x, knn_graph(x, 2))
    assert torch.allclose(out[0, 0], out[0, 1], atol=1e-6) == equal
