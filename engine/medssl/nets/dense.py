"""From a feature pyramid to one vector per cell."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.protocols import FeatureLevel

DENSE_STRIDE = 4
DENSE_CHANNELS = 64


class DenseFeatures(nn.Module):
    """The dense feature: levels of stride >= 4 on the stride-4 grid, each L2-normalised, concatenated.

    A fixed linear projection (fitted on training features, stored with the weights) brings the
    concatenation to 64 channels. Because it is linear it may be applied level by level, before the
    coarse levels are brought to the fine grid: that is cheaper and equal, since interpolation and
    projection commute.

    Args:
        levels: the levels of the encoder, finest first.
        out_channels: channels of the projected feature.
    """

    weight: Tensor
    mean: Tensor

    def __init__(self, levels: Sequence[FeatureLevel], out_channels: int = DENSE_CHANNELS) -> None:
        super().__init__()
        self.used = tuple(i for i, level in enumerate(levels) if min(level.stride) >= DENSE_STRIDE)
        if not self.used:
            self.used = (len(levels) - 1,)
        self.levels = tuple(levels[i] for i in self.used)
        self.in_channels = sum(level.channels for level in self.levels)
        self.out_channels = min(out_channels, self.in_channels)
        self.register_buffer("weight", torch.eye(self.out_channels, self.in_channels))
        self.register_buffer("mean", torch.zeros(self.in_channels))

    def normalized(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """The used levels of a pyramid, each cell of unit length: [(B, C_i, *S_i)]."""
        return [F.normalize(pyramid[i], dim=1) for i in self.used]

    def concatenated(self, pyramid: Sequence[Tensor]) -> Tensor:
        """(B, sum C, *S / 4): the feature that heads and prototypes see."""
        first, *others = self.normalized(pyramid)
        return torch.cat([first, *(resize(level, first.shape[2:]) for level in others)], dim=1)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """(B, out_channels, *S / 4): concatenated, centred, projected."""
        total: Tensor | None = None
        for level, weight in zip(self.normalized(pyramid), self.weights(), strict=True):
            part = torch.einsum("oc,bcn->bon", weight, level.flatten(2)).reshape(
                level.shape[0], -1, *level.shape[2:]
            )
            total = part if total is None else total + resize(part, total.shape[2:])
        if total is None:
            raise ValueError("the pyramid has no level to use")
        return total - self.offset().view(1, -1, *(1,) * (total.ndim - 2))

    def weights(self) -> list[Tensor]:
        """The projection cut by level: [(out_channels, C_i)]."""
        return list(torch.split(self.weight, [level.channels for level in self.levels], dim=1))

    def offset(self) -> Tensor:
        """The projected mean (out_channels,), subtracted once."""
        return self.weight @ self.mean


def resize(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Linear interpolation of (B, C, *S) to ``shape``, box to box (cells keep their centres)."""
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return F.interpolate(x, size=tuple(shape), mode=mode, align_corners=False)


@torch.no_grad()
def fit_projection(dense: DenseFeatures, first: Tensor, second: Tensor, ridge: float = 0.1) -> None:
    """Fit the 64-channel projection on cells seen twice, in place.

    Kept are the directions whose variance over cells is largest relative to the variance between two
    views of one cell (linear discriminants, each cell its own class): S_t w = lambda (S_w + ridge) w, with
    w^T (S_w + ridge) w = 1. Principal components, which keep what varies most, lost up to 6 Dice in label
    transfer against these. The scale is set so that features have unit mean square norm.

    Args:
        dense: module whose ``weight`` and ``mean`` are set.
        first: (N, sum C) concatenated features of N cells.
        second: (N, sum C) of the same cells in another view.
        ridge: added to the diagonal of S_w, relative to its mean.

    Raises:
        ValueError: fewer cells than channels, so that S_w cannot be told from noise.
    """
    a, b = first.double().cpu(), second.double().cpu()
    if len(a) <= dense.in_channels:
        raise ValueError(f"{len(a)} cells are too few to fit a projection of {dense.in_channels} channels")
    mean = (a.mean(0) + b.mean(0)) / 2
    both = torch.cat([a, b]) - mean
    total = both.T @ both / len(both)
    within = (a - b).T @ (a - b) / (2 * len(a))
    within += ridge * within.diagonal().mean().clamp_min(1e-12) * torch.eye(len(within), dtype=within.dtype)
    whiten = torch.linalg.inv(torch.linalg.cholesky(within))  # S_w = L L^T, so W = L^-1 makes it the identity
    values, axes = torch.linalg.eigh(whiten @ total @ whiten.T)  # ascending
    weight = axes.flip(1).T[: dense.out_channels] @ whiten
    weight *= weight.gather(
        1, weight.abs().argmax(1, keepdim=True)
    ).sign()  # a sign that LAPACK does not choose
    weight /= values.flip(0)[: dense.out_channels].sum().sqrt()
    dense.weight.copy_(weight)
    dense.mean.copy_(mean)
