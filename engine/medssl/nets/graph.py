"""Graphs over the images of a batch: nearest neighbours and message passing along them."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Convolution = Literal["root", "self", "paper"]


@torch.no_grad()
def knn_graph(z: Tensor, k: int) -> Tensor:
    """Directed edges from every node to its nearest others, by Euclidean distance.

    Args:
        z: (G, N, D) embeddings of N nodes in each of G graphs.
        k: neighbours per node; at most N - 1 are there.

    Returns:
        (G, 2, N k) int64, start and end node of each edge; those of node i at i k to (i + 1) k, nearest
        first, ties by number.
    """
    nodes = z.shape[1]
    k = min(k, nodes - 1)
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    distance = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")  # (G, N, N)
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    near = distance.argsort(dim=2, stable=True)[..., :k].flatten(1)  # (G, N k)
    start = torch.arange(nodes, device=z.device).repeat_interleave(k).expand_as(near)
    return torch.stack([start, near], dim=1)


def propagation(edges: Tensor, nodes: int, convolution: Convolution = "self") -> Tensor:
    """The matrix that averages over the neighbours of a node.

    Args:
        edges: (G, 2, E) int64 directed edges.
        nodes: N.
        convolution: "self": D^-1/2 (A + I) D^-1/2 with D the row sum of A + I, so that rows of a
            k-nearest-neighbour graph add up to 1; "paper": the same with D the row sum of A, as printed in
            LVM-Med, so that they add up to (k + 1) / k; "root": D^-1 A, the neighbours alone.

    Returns:
        (G, N, N) float32.
    """
    adjacency = torch.zeros(len(edges), nodes * nodes, device=edges.device)
    cells = edges[:, 0] * nodes + edges[:, 1]
    adjacency = adjacency.scatter_(1, cells, 1.0).reshape(-1, nodes, nodes)
    degree = adjacency.sum(dim=2).clamp(min=1)
    if convolution == "root":
        return adjacency / degree[:, :, None]
    scale = (degree + (convolution == "self")).rsqrt()
    looped = adjacency + torch.eye(nodes, device=edges.device)
    return scale[:, :, None] * looped * scale[:, None, :]


class MessagePassing(nn.Module):
    """Graph convolutions, ReLU between them, no activation after the last one.

    With P of `propagation`: H <- P H W, or with "root" H <- H V + P H W. Without weights of its own a node
    becomes its neighbours' mean: those of a clique (k + 1 mutual neighbours) become equal, and no matching
    can tell them apart.

    The graphs are small (16 nodes), so that dense products are faster than sparse ones.

    Args:
        in_channels: D of the nodes.
        channels: of every layer.
        layers: number of convolutions; 0 passes nodes on unchanged.
        convolution: "self" and "paper" after Kipf, Welling, "Semi-supervised classification with graph
            convolutional networks", ICLR 2017, equation 2; "root" after Morris et al., "Weisfeiler and Leman
            go neural", AAAI 2019, equation 5.
    """

    def __init__(
        self, in_channels: int, channels: int, layers: int = 2, convolution: Convolution = "root"
    ) -> None:
        super().__init__()
        self.convolution: Convolution = convolution
        widths = [in_channels] + [channels] * layers
        self.around = nn.ModuleList(
            nn.Linear(before, after, bias=False) for before, after in pairwise(widths)
        )
        self.own = nn.ModuleList(
            nn.Linear(before, after) for before, after in pairwise(widths) if convolution == "root"
        )
        self.out_channels = widths[-1]

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Nodes (G, N, D) and edges (G, 2, E) -> (G, N, out_channels)."""
        mix = propagation(edges, x.shape[1], self.convolution).to(x.dtype)  # (G, N, N)
        for number, around in enumerate(self.around):
            passed = mix @ around(x)
            x = passed + self.own[number](x) if self.own else passed
            if number < len(self.around) - 1:
                x = F.relu(x)
        return x
