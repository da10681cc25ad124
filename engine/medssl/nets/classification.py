"""The network that gives a whole image its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nets.backbone import Backbone
from medssl.nets.dense import DenseFeatures
from medssl.nets.encoders import AnyEncoder


class PooledLinear(nn.Module):
    """Pooled features, standardised, times one weight per class.

    Args:
        channels: D of the pooled feature.
        classes: number of classes K.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.linear = nn.Linear(channels, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def start_from(self, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Take over a probe: mean and scale (D,), weight (K, D) and bias (K,) on standardised inputs."""
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, D) -> logits (B, K)."""
        return cast("Tensor", self.linear((pooled - self.mean) / self.scale))


class ClassificationNetwork(nn.Module):
    """Encoder, its levels of stride >= 4 pooled over all cells, a linear map to the classes.

    Every cell is brought to unit length, as in the dense feature; a level gives the mean and the maximum
    over its cells. State: ``backbone.encoder.*`` and ``classification.*``.

    Args:
        encoder: gives the pyramid.
        classes: number of classes K.
    """

    def __init__(self, encoder: AnyEncoder, classes: int) -> None:
        super().__init__()
        self.backbone = Backbone(encoder)
        self.dense = DenseFeatures(encoder.levels)
        self.classification = PooledLinear(2 * self.dense.in_channels, classes)
        self.config: Mapping[str, Any] = {"classes": classes}

    @property
    def encoder(self) -> AnyEncoder:
        """The bare encoder."""
        return cast("AnyEncoder", self.backbone.encoder)

    @property
    def multiple(self) -> tuple[int, ...]:
        """Voxels per axis come in multiples of this (the coarsest stride)."""
        return self.encoder.levels[-1].stride

    def pool(self, pyramid: Sequence[Tensor]) -> Tensor:
        """The pooled feature (B, 2 sum C) of a pyramid."""
        cells = [level.flatten(2) for level in self.dense.normalized(pyramid)]
        return torch.cat([*(c.mean(dim=2) for c in cells), *(c.amax(dim=2) for c in cells)], dim=1)

    def see(self, x: Tensor) -> list[Tensor]:
        """(B, C, *S) -> the encoder's pyramid, S of any size: padded with zeros to the stride."""
        missing = [-size % step for size, step in zip(x.shape[2:], self.multiple, strict=True)]
        if any(missing):
            x = F.pad(x, [side for size in reversed(missing) for side in (0, size)])
        return cast("list[Tensor]", self.backbone(x))

    def pooled(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> the pooled feature (B, D)."""
        return self.pool(self.see(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> logits (B, K)."""
        return cast("Tensor", self.classification(self.pooled(x)))
