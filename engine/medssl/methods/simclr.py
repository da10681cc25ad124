"""SimCLR: two views of an image attract, the other images of the batch repel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from medssl.config.simclr import SimclrConfig
from medssl.losses.contrastive import nt_xent
from medssl.losses.gathering import gather_rows
from medssl.losses.view_statistics import view_statistics
from medssl.nets.backbone import Backbone
from medssl.nets.heads import ProjectionHead
from medssl.protocols import Batch, Encoder, Losses
from medssl.transforms.view_pairs import ViewPair, ViewPairs


@dataclass(frozen=True)
class SimclrViews:
    """Two crops of one batch, and which volume each image is from, (B,)."""

    pair: ViewPair
    volume: Tensor


class Simclr(nn.Module):
    """SimCLR (Chen et al., "A simple framework for contrastive learning", ICML 2020).

    z = head(mean over space of the coarsest level), both views in one pass; NT-Xent (equation 1) over the
    2B embeddings. With several processes the negatives are those of all of them.

    Args:
        backbone: encoder that is trained.
        config: settings.
    """

    def __init__(self, backbone: Backbone, config: SimclrConfig) -> None:
        super().__init__()
        encoder = cast(Encoder, backbone.encoder)
        self.backbone = backbone
        self.config = config
        self.head = ProjectionHead(encoder.levels[-1].channels, config.hidden, config.dim)
        settings = config.views
        self.crops = ViewPairs.of(
            (settings.size,) * encoder.spatial_dims,
            settings.intensity.model_dump(),
            scale=settings.scale,
            aspect=settings.aspect,
            angle=settings.rotation,
            turn_p=settings.turn_p,
            quarter_turns=settings.quarter_turns,
            mirror_axes=settings.mirror_axes,
        )

    def views(self, batch: Batch, generator: torch.Generator) -> SimclrViews:
        """Two crops of a batch of source patches (B, C, *S); all randomness from ``generator``."""
        return SimclrViews(self.crops(batch.image, generator, batch.spacing), batch.index)

    def forward(self, views: SimclrViews, step: int) -> Losses:
        """NT-Xent, with collapse alarms as metrics."""
        both = torch.cat(views.pair.images)  # (2B, C, *S)
        z = self.head(self.backbone(both)[-1].flatten(2).mean(2))  # (2B, D)
        za, zb = (gather_rows(part) for part in z.chunk(2))
        mask = None
        if self.config.mask_same_volume:
            volume = gather_rows(views.volume)
            mask = volume[:, None] != volume
        loss = nt_xent(za, zb, self.config.temperature, neg_mask=mask)
        return Losses(loss, view_statistics(za, zb))


def build(config: SimclrConfig, backbone: Backbone, modalities: int) -> Simclr:
    """The method over a backbone; it treats all modalities alike."""
    return Simclr(backbone, config)
