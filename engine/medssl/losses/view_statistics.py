"""Numbers that tell healthy embeddings of two views from collapsed ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


@torch.no_grad()
def view_statistics(za: Tensor, zb: Tensor) -> dict[str, Tensor]:
    """How spread out embeddings are, and how well the two views find each other.

    Args:
        za: (B, D) embeddings of the first view.
        zb: (B, D) of the second view; row b is the same image.

    Returns:
        ``feature_spread``: standard deviation over images of the unit embeddings, times sqrt(D) (1 when
        they fill the sphere, 0 when all images look alike);
        ``match_accuracy``: share of images whose other view is the nearest of all B (1 / B by chance);
        ``alignment``: mean cosine of the two views.
    """
    first, second = (functional.normalize(z.float(), dim=1) for z in (za, zb))
    cosine = first @ second.T  # (B, B)
    nearest = cosine.argmax(dim=1) == torch.arange(len(cosine), device=cosine.device)
    return {
        "feature_spread": first.std(dim=0, correction=0).mean() * first.shape[1] ** 0.5,
        "match_accuracy": nearest.float().mean(),
        "alignment": cosine.diagonal().mean(),
    }
