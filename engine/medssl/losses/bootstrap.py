"""Regression onto the embedding of another view."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def bootstrap_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance of unit vectors, |p - z|^2 = 2 - 2 cos(p, z), mean over the batch.

    Args:
        prediction: (B, D) of one view.
        target: (B, D) embedding of the other view; takes no gradient.

    Returns:
        Scalar in [0, 4].

    Raises:
        ValueError: the shapes differ.

    Reference: Grill et al., "Bootstrap your own latent", NeurIPS 2020, equation 2.
    """
    if prediction.shape != target.shape or prediction.ndim != 2:
        raise ValueError(f"both must be (B, D), got {tuple(prediction.shape)} and {tuple(target.shape)}")
    kind = torch.promote_types(prediction.dtype, torch.float32)
    cosine = functional.cosine_similarity(prediction.to(kind), target.detach().to(kind), dim=1)
    return (2 - 2 * cosine).mean()
