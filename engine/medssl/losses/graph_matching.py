"""Graph matching as a differentiable layer, and the loss on its assignment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from medssl.losses.matching import QapMethod, solve_qap


def graph_match(  # noqa: PLR0917 (the order of arguments is public)
    vertex: Tensor,
    edge: Tensor,
    edges_s: Tensor,
    edges_t: Tensor,
    lam: float = 80.0,
    gumbel_scale: float = 0.0,
    generator: torch.Generator | None = None,
    *,
    method: QapMethod = "ipfp",
    starts: int = 3,
    shortcut: bool = False,
) -> Tensor:
    """Best assignment of two graphs, with a gradient from a second, perturbed solution.

    Forward: v = argmax of the matching objective of affinities plus Gumbel noise. Backward (implicit
    maximum likelihood), for an incoming gradient g with s = max |g| per graph and the same noise:
    v' = argmax for vertex - lam g / s, and d vertex = s (v - v') / lam, d edge = s (Q(v) - Q(v')) / lam,
    where Q[e, f] = 1 if edge e of s goes to edge f of t. For method "lap", the first-order ablation that does
    not look at the edges, d edge = 0.

    The published estimator perturbs by lam g itself. Dividing by s first makes the backward pass homogeneous
    in g, so that loss weights, averaging over graphs and gradient scaling do what they say; for one graph and
    a loss with max |g| = 1 both agree.

    Args:
        vertex: (G, N, N) node affinities.
        edge: (G, E_s, E_t) edge affinities.
        edges_s: (2, E_s) or (G, 2, E_s) int64.
        edges_t: (2, E_t) or (G, 2, E_t) int64.
        lam: strength of the perturbation.
        gumbel_scale: of the noise on all affinities; 1 in the paper, 0 for none.
        generator: source of the noise; needed if ``gumbel_scale`` is not 0.
        method: see `solve_qap`.
        starts: see `solve_qap`.
        shortcut: see `solve_qap`. With the published ``lam`` of 80 the push outweighs the edges, so that the
            second solution is nearly always found without a search.

    Returns:
        (G, N, N) float32 0/1 matrix, one 1 per row and column.

    Raises:
        ValueError: if noise is wanted without a generator, or ``lam`` is not positive.

    Reference: Nguyen et al. (LVM-Med), NeurIPS 2023, section 3.3; Niepert, Minervini, Franceschi, "Implicit
    MLE", NeurIPS 2021.
    """
    if lam <= 0:
        raise ValueError(f"lam must be positive, got {lam}")
    vertex, edge = (a.to(torch.promote_types(a.dtype, torch.float32)) for a in (vertex, edge))
    if gumbel_scale:
        if generator is None:
            raise ValueError("gumbel_scale needs a generator")
        vertex, edge = (a + gumbel_scale * _gumbel(a, generator) for a in (vertex, edge))
    assignment: Tensor = _Match.apply(vertex, edge, edges_s, edges_t, lam, (method, starts, shortcut))  # type: ignore[no-untyped-call]
    return assignment


def hamming(assignment: Tensor, target: Tensor | None = None) -> Tensor:
    """Entries in which an assignment differs from the target: twice the wrong rows, 0 or 4 to 2N.

    Args:
        assignment: (G, N, N) 0/1.
        target: (G, N, N) 0/1, or None for the identity.

    Returns:
        (G,), differentiable; gradient 1 - 2 target.
    """
    if target is None:
        target = torch.eye(assignment.shape[-1], device=assignment.device).expand_as(assignment)
    target = target.to(assignment.dtype)
    return (assignment * (1 - target) + (1 - assignment) * target).sum(dim=(1, 2))


def edge_affinity(zs: Tensor, zt: Tensor, edges_s: Tensor, edges_t: Tensor) -> Tensor:
    """Cosine of the difference vectors along the edges of two graphs.

    Args:
        zs: (G, N, D) node embeddings of s.
        zt: (G, N, D) node embeddings of t.
        edges_s: (2, E_s) or (G, 2, E_s) int64.
        edges_t: (2, E_t) or (G, 2, E_t) int64.

    Returns:
        (G, E_s, E_t).
    """
    along = []
    for z, edges in ((zs, edges_s), (zt, edges_t)):
        index = edges.expand(len(z), 2, edges.shape[-1])[..., None].expand(-1, -1, -1, z.shape[-1])
        begin, end = (z.gather(1, index[:, k]) for k in (0, 1))  # (G, E, D)
        along.append(functional.normalize(begin - end, dim=-1))
    return along[0] @ along[1].mT


class _Match(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (autograd passes by position)
        ctx: Any,
        vertex: Tensor,
        edge: Tensor,
        edges_s: Tensor,
        edges_t: Tensor,
        lam: float,
        solver: tuple[QapMethod, int, bool],
    ) -> Tensor:
        method, starts, shortcut = solver
        permutation = solve_qap(vertex, edge, edges_s, edges_t, method, starts=starts, shortcut=shortcut)
        ctx.save_for_backward(vertex, edge, edges_s, edges_t, permutation)
        ctx.settings = lam, solver
        return functional.one_hot(permutation, vertex.shape[-1]).to(vertex.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        vertex, edge, edges_s, edges_t, permutation = ctx.saved_tensors
        lam, (method, starts, shortcut) = ctx.settings
        size = g.abs().amax(dim=(1, 2), keepdim=True)  # (G, 1, 1)
        # A gradient of zero moves nothing: v' = v.
        push = lam * g / torch.where(size > 0, size, torch.ones_like(size))
        other = solve_qap(vertex - push, edge, edges_s, edges_t, method, starts=starts, shortcut=shortcut)
        nodes = vertex.shape[-1]
        v, w = (functional.one_hot(p, nodes).to(g.dtype) for p in (permutation, other))
        d_vertex = size * (v - w) / lam
        if method == "lap":  # does not look at the edges
            return d_vertex, None, None, None, None, None
        hit, other_hit = (_edges_hit(p, edges_s, edges_t) for p in (permutation, other))
        difference = hit.to(g.dtype) - other_hit.to(g.dtype)
        return d_vertex, size * difference / lam, None, None, None, None


def _edges_hit(permutation: Tensor, edges_s: Tensor, edges_t: Tensor) -> Tensor:
    """Q (G, E_s, E_t): true where the permutation (G, N) takes an edge of s to an edge of t."""
    graphs = len(permutation)
    s, t = (e.expand(graphs, 2, e.shape[-1]) for e in (edges_s, edges_t))
    begin, end = (permutation.gather(1, s[:, k]) for k in (0, 1))  # (G, E_s)
    return (begin[:, :, None] == t[:, None, 0]) & (end[:, :, None] == t[:, None, 1])


def _gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Gumbel(0, 1) noise in the shape of ``like``, drawn on the generator's device."""
    waited = torch.empty(like.shape, device=generator.device, dtype=like.dtype).exponential_(
        generator=generator
    )
    return -waited.clamp(min=1e-30).log().to(like)
