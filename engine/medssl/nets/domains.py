"""Heads for the three levels of a collection of domains: image, task, group."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class DomainScores(NamedTuple):
    """What the heads say of B images.

    Args:
        embedding: (B, D) for the contrastive loss, of any length.
        task: (B, T) logits.
        group: (B, G) logits.
    """

    embedding: Tensor
    task: Tensor
    group: Tensor


class DomainHeads(nn.Module):
    """Projection and two linear classifiers on the spatial mean of one feature map.

    The classifiers begin at zero: their cross-entropies at ln T and ln G.

    Args:
        in_channels: C of the map.
        tasks: number of tasks T.
        groups: number of groups G.
        dim: D of the projection.
    """

    def __init__(self, in_channels: int, tasks: int, groups: int, dim: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            nn.Linear(in_channels, in_channels), nn.ReLU(), nn.Linear(in_channels, dim)
        )
        self.task = nn.Linear(in_channels, tasks)
        self.group = nn.Linear(in_channels, groups)
        for classifier in (self.task, self.group):
            nn.init.zeros_(classifier.weight)
            nn.init.zeros_(classifier.bias)

    def forward(self, features: Tensor) -> DomainScores:
        """Scores of a map (B, C, *F)."""
        pooled = features.flatten(2).mean(2)  # (B, C)
        return DomainScores(self.projection(pooled), self.task(pooled), self.group(pooled))
