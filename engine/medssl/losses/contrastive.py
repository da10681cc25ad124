"""Contrastive losses: pull matching embeddings together, push the others apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medssl.losses.gathering import mean_over_world


def nt_xent(za: Tensor, zb: Tensor, temperature: float = 0.1, *, neg_mask: Tensor | None = None) -> Tensor:
    """Normalised temperature-scaled cross entropy between two views of B images.

    Each of the 2B embeddings is an anchor; its positive is the other view of its image, its negatives are
    both views of the other images. Cosine similarity; mean over anchors.

    Args:
        za: (B, D) embeddings of the first view.
        zb: (B, D) embeddings of the second view.
        temperature: of the softmax.
        neg_mask: (B, B) bool, True where image b may be a negative of image a; None for all. Excluded pairs
            get no gradient: slices of one volume, or images of another task.

    Returns:
        Scalar; ln(2B - 1) for collapsed embeddings.

    Raises:
        ValueError: if the views differ in shape.

    Reference: Chen et al., "A simple framework for contrastive learning of visual representations", ICML
    2020, equation 1.
    """
    if za.shape != zb.shape or za.ndim != 2:
        raise ValueError(f"both views must be (B, D), got {tuple(za.shape)} and {tuple(zb.shape)}")
    batch = len(za)
    z = functional.normalize(torch.cat([za, zb]).to(torch.promote_types(za.dtype, torch.float32)), dim=1)
    with torch.autocast(z.device.type, enabled=False):
        logits = z @ z.T / temperature  # (2B, 2B)
    itself = torch.arange(2 * batch, device=z.device)
    positive = itself.roll(batch)
    excluded = torch.zeros_like(logits, dtype=torch.bool)
    if neg_mask is not None:
        excluded = ~neg_mask.repeat(2, 2)
        excluded[itself, positive] = False
    excluded[itself, itself] = True
    return functional.cross_entropy(logits.masked_fill(excluded, -torch.inf), positive)


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float = 0.2) -> Tensor:
    """Cross entropy of finding a query's own key among a dictionary of other keys.

    -log(exp(q.k / t) / (exp(q.k / t) + sum over n exp(q.n / t))), cosine similarity, mean over queries.

    Args:
        queries: (B, D) embeddings.
        keys: (B, D) embedding of the other view of each; takes no gradient.
        negatives: (L, D) keys of other images; takes no gradient.
        temperature: of the softmax.

    Returns:
        Scalar; ln(L + 1) for collapsed embeddings.

    Raises:
        ValueError: queries and keys differ in shape.

    Reference: He et al., "Momentum contrast for unsupervised visual representation learning", CVPR 2020,
    equation 1.
    """
    if queries.shape != keys.shape or queries.ndim != 2:
        raise ValueError(f"both must be (B, D), got {tuple(queries.shape)} and {tuple(keys.shape)}")
    kind = torch.promote_types(queries.dtype, torch.float32)
    q, k, n = (functional.normalize(z.to(kind), dim=1) for z in (queries, keys.detach(), negatives.detach()))
    with torch.autocast(q.device.type, enabled=False):
        positive = (q * k).sum(dim=1, keepdim=True)  # (B, 1)
        logits = torch.cat([positive, q @ n.T], dim=1) / temperature  # (B, 1 + L)
    return functional.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def supervised_contrast(z: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Contrast inside each set of embeddings where all of one label are positives.

    -mean over anchors of mean over positives p of log(exp(z.p / t) / sum over all others exp(z.o / t)).
    A collective call: the anchors of all processes count once each (see `mean_over_world`).

    Args:
        z: (B, N, D) embeddings, N per set: cells of all views of one volume, say.
        labels: (B, N) integers, compared inside a set only; negative ones take no part.
        temperature: of the softmax.

    Returns:
        Scalar; 0 where no label occurs twice.

    Reference: Khosla et al., "Supervised contrastive learning", NeurIPS 2020, equation 2.
    """
    z = functional.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=-1)
    with torch.autocast(z.device.type, enabled=False):
        logits = z @ z.mT / temperature  # (B, N, N)
    used = labels >= 0
    other = ~torch.eye(z.shape[1], dtype=torch.bool, device=z.device) & used[:, None, :]
    # Finite, so that a row without any other cell stays free of NaN.
    log_p = logits.masked_fill(~other, torch.finfo(logits.dtype).min).log_softmax(dim=-1)
    positive = other & (labels[:, :, None] == labels[:, None, :]) & used[:, :, None]
    count = positive.sum(dim=-1)  # (B, N)
    per_anchor = -log_p.masked_fill(~positive, 0.0).sum(dim=-1) / count.clamp(min=1)
    return mean_over_world(per_anchor, count > 0)
