"""From a feature pyramid to one vector per cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.protocols import FeatureLevel

DENSE_STRIDE = 4
DENSE_CHANNELS = 64


class DenseFeatures(nn.Module):
    """The dense feature: levels of stride >= 4 on the stride-4 grid, each L2-normalised, concatenated.

    A fixed linear projection (principal axes of training features, stored with the weights) brings the
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
def fit_projection(dense: DenseFeatures, features: Iterable[Tensor], whitening: float = 0.5) -> None:
    """Fit the 64-channel projection by principal component analysis, in place.

    Args:
        dense: module whose ``weight`` and ``mean`` are set.
        features: batches of concatenated features (N, sum C).
        whitening: exponent w: component j is divided by sigma_j ** w; 0 keeps distances, 1 gives
            every component the same weight. The scale is then set so that features have unit
            mean square norm.

    Raises:
        ValueError: fewer samples than output channels.
    """
    x = torch.cat([batch.double().cpu() for batch in features])
    if x.shape[0] <= dense.out_channels:
        raise ValueError(f"{x.shape[0]} cells are too few to fit {dense.out_channels} components")
    mean = x.mean(0)
    _, sigma, axes = torch.linalg.svd(x - mean, full_matrices=False)
    sigma = (sigma / x.shape[0] ** 0.5)[: dense.out_channels].clamp_min(1e-9)
    axes = axes[: dense.out_channels]
    axes = (
        axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    )  # a sign that does not depend on LAPACK
    scale = sigma.pow(-whitening)
    weight = axes * scale[:, None]
    weight = weight / (sigma * scale).square().sum().sqrt()
    dense.weight.copy_(weight)
    dense.mean.copy_(mean)
