"""MoCo v2: find the key of the other view among a queue of earlier keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medssl.config.moco import MocoConfig
from medssl.losses.contrastive import info_nce
from medssl.losses.gathering import gather_rows
from medssl.losses.view_statistics import view_statistics
from medssl.nets.backbone import Backbone
from medssl.nets.heads import ProjectionHead
from medssl.nets.momentum import MomentumCopy, momentum_at
from medssl.protocols import Batch, Encoder, Losses
from medssl.transforms.view_pairs import ViewPair, ViewPairs


@dataclass(frozen=True)
class MocoViews:
    """Query and key crops of one batch, and the order (B,) in which keys pass the encoder."""

    pair: ViewPair
    order: Tensor


class Moco(nn.Module):
    """MoCo v2 (Chen et al., "Improved baselines with momentum contrastive learning", 2020).

    q = head(encoder(first view)), k = the same by weights that follow with momentum (He et al., CVPR 2020,
    equation 2); InfoNCE (equation 1) of q against its k and a queue of earlier k. Queue and key encoder are
    part of the state dict. With several processes the queue takes the keys of all, and is equal everywhere.

    Args:
        backbone: encoder that is trained.
        config: settings.
    """

    queue: Tensor
    newest: Tensor

    def __init__(self, backbone: Backbone, config: MocoConfig) -> None:
        super().__init__()
        encoder = cast(Encoder, backbone.encoder)
        self.backbone = backbone
        self.config = config
        self.head = ProjectionHead(encoder.levels[-1].channels, config.hidden, config.dim, norm=False)
        self.keys = MomentumCopy(backbone, self.head)
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
        # random directions until keys have come, as in the reference code
        self.register_buffer(
            "queue", functional.normalize(torch.randn(config.queue_length, config.dim), dim=1)
        )
        self.register_buffer("newest", torch.zeros((), dtype=torch.long))  # row that is written next

    def plan(self, steps: int) -> None:
        """Stretch the schedule of the momentum over ``steps``."""
        self._steps = steps

    def views(self, batch: Batch, generator: torch.Generator) -> MocoViews:
        """Query and key crops of source patches (B, C, *S); all randomness from ``generator``."""
        pair = self.crops(batch.image, generator, batch.spacing)
        order = torch.randperm(len(batch.image), generator=generator, device=generator.device)
        return MocoViews(pair, order.to(batch.image.device))

    def forward(self, views: MocoViews, step: int) -> Losses:
        """InfoNCE, with collapse alarms as metrics; in training mode the keys join the queue."""
        queries = _embed(self.backbone, self.head, views.pair.images[0])
        if self.training:
            schedule = self.config.momentum
            momentum = momentum_at(step, self._steps, schedule.start, schedule.end)
            self.keys.follow((self.backbone, self.head), step, momentum)
        keys = self._keys(views.pair.images[1], views.order)
        loss = info_nce(queries, keys, self.queue.clone(), self.config.temperature)
        if self.training:
            self._enqueue(gather_rows(keys))
        return Losses(loss, view_statistics(queries, keys))

    @torch.no_grad()
    def _keys(self, x: Tensor, order: Tensor) -> Tensor:
        """(B, D); groups of at least two, as batch norm needs."""
        backbone, head = self.keys.copies
        groups = max(1, min(self.config.shuffle_groups, len(x) // 2))
        if groups == 1:
            return _embed(backbone, head, x)
        shuffled = [_embed(backbone, head, part) for part in x[order].tensor_split(groups)]
        return torch.cat(shuffled)[order.argsort()]

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        length = len(self.queue)
        keys = keys[-length:]
        rows = (self.newest + torch.arange(len(keys), device=keys.device)) % length
        self.queue[rows] = keys.to(self.queue.dtype)
        self.newest.copy_((self.newest + len(keys)) % length)


def build(config: MocoConfig, backbone: Backbone, modalities: int) -> Moco:
    """The method over a backbone; it treats all modalities alike."""
    return Moco(backbone, config)


def _embed(backbone: nn.Module, head: nn.Module, x: Tensor) -> Tensor:
    """(B, C, *S) -> unit vectors (B, D)."""
    z: Tensor = head(backbone(x)[-1].flatten(2).mean(2))
    return z
