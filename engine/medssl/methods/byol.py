"""BYOL: predict the other view's embedding by a slower copy of the network; no negatives."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from medssl.config.byol import ByolConfig
from medssl.losses.bootstrap import bootstrap_loss
from medssl.losses.view_statistics import view_statistics
from medssl.nets.backbone import Backbone
from medssl.nets.heads import ProjectionHead
from medssl.nets.momentum import MomentumCopy, momentum_at
from medssl.protocols import Batch, Encoder, Losses
from medssl.transforms.view_pairs import ViewPair, ViewPairs


class Byol(nn.Module):
    """BYOL (Grill et al., "Bootstrap your own latent", NeurIPS 2020).

    Online: encoder, projector, predictor. Target: encoder and projector that follow with momentum (section
    3.2). Loss: equation 2 for both assignments of the views, added. The target is part of the state dict.

    Args:
        backbone: encoder that is trained.
        config: settings.
    """

    def __init__(self, backbone: Backbone, config: ByolConfig) -> None:
        super().__init__()
        encoder = cast(Encoder, backbone.encoder)
        self.backbone = backbone
        self.config = config
        self.head = ProjectionHead(encoder.levels[-1].channels, config.hidden, config.dim, unit=False)
        self.predictor = ProjectionHead(config.dim, config.hidden, config.dim, unit=False)
        self.target = MomentumCopy(backbone, self.head)
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
        self._steps: int | None = None

    def plan(self, steps: int) -> None:
        """Stretch the schedule of the momentum over ``steps``."""
        self._steps = steps

    def views(self, batch: Batch, generator: torch.Generator) -> ViewPair:
        """Two crops of a batch of source patches (B, C, *S); all randomness from ``generator``."""
        return self.crops(batch.image, generator, batch.spacing)

    def forward(self, views: ViewPair, step: int) -> Losses:
        """Both directions of equation 2, with collapse alarms as metrics."""
        if self.training:
            schedule = self.config.momentum
            momentum = momentum_at(step, self._steps, schedule.start, schedule.end)
            self.target.follow((self.backbone, self.head), step, momentum)
        # one pass per view: batch statistics are those of a view, as in the paper
        online = [_project(self.backbone, self.head, view) for view in views.images]  # each (B, D)
        backbone, head = self.target.copies
        with torch.no_grad():
            targets = [_project(backbone, head, view) for view in views.images]
        loss = bootstrap_loss(self.predictor(online[0]), targets[1])
        loss = loss + bootstrap_loss(self.predictor(online[1]), targets[0])
        return Losses(loss, view_statistics(*online))


def build(config: ByolConfig, backbone: Backbone, modalities: int) -> Byol:
    """The method over a backbone; it treats all modalities alike."""
    return Byol(backbone, config)


def _project(backbone: nn.Module, head: nn.Module, x: Tensor) -> Tensor:
    z: Tensor = head(backbone(x)[-1].flatten(2).mean(2))
    return z
