"""Reconstruction losses of masked image modelling."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_patch_loss(prediction: Tensor, target: Tensor, visible: Tensor, normalise: bool = True) -> Tensor:
    """Mean squared error over the patches the encoder did not see.

    With ``normalise`` each patch of the target first gets mean 0 and variance 1 over its voxels and channels
    (unbiased variance, plus 1e-6), so that flat patches count little and contrast does not matter.

    Args:
        prediction: (B, C, *S).
        target: (B, C, *S).
        visible: (B, 1, *F) bool, one entry per patch of S / F voxels; True = seen, not counted.
        normalise: whether targets are normalised per patch.

    Returns:
        Scalar, mean over the masked patches of all samples; 0 if none is masked.

    Raises:
        ValueError: if shapes differ or S is not a multiple of F.

    Reference: Tian et al., "Designing BERT for convolutional networks: sparse and hierarchical masked
    modeling" (SparK), ICLR 2023, section 3.3; patch normalisation from He et al., CVPR 2022.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ")
    predicted = patchify(
        prediction.to(torch.promote_types(prediction.dtype, torch.float32)), visible.shape[2:]
    )
    wanted = patchify(target.to(predicted.dtype), visible.shape[2:])  # (B, L, N)
    if normalise:
        variance, mean = torch.var_mean(wanted, dim=-1, keepdim=True)
        wanted = (wanted - mean) / (variance + 1e-6).sqrt()
    error = (predicted - wanted).square().mean(dim=-1)  # (B, L)
    masked = ~visible.flatten(1).bool()
    return error.masked_fill(~masked, 0.0).sum() / (masked.sum() + 1e-8)


def explained(loss: Tensor, target: Tensor, visible: Tensor, normalise: bool = True) -> Tensor:
    """Share of the hidden patches' variance that a loss leaves none of: 1 at best, 0 for a constant guess.

    Args:
        loss: scalar of `masked_patch_loss`.
        target: (B, C, *S).
        visible: (B, 1, *F) bool.
        normalise: as for the loss.

    Returns:
        1 - loss / (loss of the best constant); with ``normalise`` that constant is 0.
    """
    constant = torch.zeros_like(target)
    if not normalise:
        patches = patchify(target, visible.shape[2:])  # (B, L, N)
        masked = ~visible.flatten(1).bool()
        total = patches.mean(dim=-1).masked_fill(~masked, 0.0).sum()
        constant = constant + total / masked.sum().clamp_min(1)
    worst = masked_patch_loss(constant, target, visible, normalise)
    return 1 - loss / worst.clamp_min(torch.finfo(torch.float32).tiny)


def patchify(x: Tensor, grid: torch.Size | tuple[int, ...]) -> Tensor:
    """Cut into the patches of a grid: (B, C, *S) -> (B, L, N), patches in array order, channel last inside.

    Args:
        x: (B, C, *S).
        grid: (n,) patches per axis; S must be a multiple of it.
    """
    if len(grid) != x.ndim - 2 or any(s % g for s, g in zip(x.shape[2:], grid, strict=True)):
        raise ValueError(f"image {tuple(x.shape[2:])} does not divide into a grid of {tuple(grid)} patches")
    split = [part for s, g in zip(x.shape[2:], grid, strict=True) for part in (g, s // g)]
    x = x.reshape(*x.shape[:2], *split)  # (B, C, f0, p0, f1, p1, ...)
    cells, inner = range(2, x.ndim, 2), range(3, x.ndim, 2)
    x = x.permute(0, *cells, *inner, 1)
    return x.flatten(1 + len(grid)).flatten(1, len(grid))
