"""Small modules on top of an encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ProjectionHead(nn.Module):
    """MLP to the space of the loss: linear, batch norm, ReLU, linear (SwAV: 2048 - BN - ReLU - 128).

    Works on vectors (B, C) and, as 1x1 convolutions, on maps (B, C, *S): every cell is projected
    alone. With running statistics (evaluation mode) both give equal results for equal cells.

    Args:
        in_channels: channels of the feature.
        hidden_channels: width of the hidden layer.
        out_channels: dimension of the projection.
        norm: whether the hidden layer has batch norm (MoCo v2 has none).
        unit: whether projections are L2-normalised (BYOL predicts from what is not).
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        norm: bool = True,
        unit: bool = True,
    ) -> None:
        super().__init__()
        self.unit = unit
        self.first = nn.Linear(in_channels, hidden_channels, bias=not norm)
        self.norm = nn.BatchNorm1d(hidden_channels) if norm else nn.Identity()
        self.second = nn.Linear(hidden_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) -> (B, D) or (B, C, *S) -> (B, D, *S), along D L2-normalised where ``unit``."""
        if x.ndim == 2:
            z: Tensor = self.second(F.relu(self.norm(self.first(x))))
            return F.normalize(z, dim=1) if self.unit else z
        cells = x.flatten(2).transpose(1, 2)  # (B, N, C)
        z = self.forward(cells.reshape(-1, x.shape[1]))  # (B * N, D)
        return z.view(x.shape[0], -1, z.shape[1]).transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])


class Prototypes(nn.Module):
    """K unit vectors; the score of a projection is its cosine with each (SwAV, section 3.1).

    Args:
        dim: dimension D of the projections.
        count: number K of prototypes.
    """

    weight: nn.Parameter

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(count, dim), dim=1))

    @torch.no_grad()
    def normalize_(self) -> None:
        """Bring every prototype back to unit length, in place; call before each step."""
        self.weight.copy_(F.normalize(self.weight, dim=1))

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) -> scores (B, K), or (B, D, *S) -> (B, K, *S), in [-1, 1] for unit z."""
        if z.ndim == 2:
            return F.linear(z, self.weight)
        scores = torch.einsum("kd,bdn->bkn", self.weight, z.flatten(2))
        return scores.reshape(z.shape[0], -1, *z.shape[2:])
