"""HSSL: image, task and group level losses on maps of the encoder and the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.config.hssl import HsslConfig
from medssl.errors import InputError
from medssl.losses.contrastive import nt_xent
from medssl.losses.gathering import gather_rows, mean_over_world
from medssl.losses.view_statistics import view_statistics
from medssl.nets.backbone import Backbone
from medssl.nets.decoder import PyramidDecoder
from medssl.nets.domains import DomainHeads, DomainScores
from medssl.protocols import Batch, Encoder, FeatureLevel, Losses
from medssl.transforms.view_pairs import ViewPair, ViewPairs

_FORGETTING = 0.05
"""How fast the running shares of the classes follow the batches."""


@dataclass(frozen=True)
class HsslViews:
    """Two crops of one batch, and where each image comes from.

    Args:
        pair: two of (B, C, *size).
        volume: (B,).
        task: (B,).
        group: (B,).
    """

    pair: ViewPair
    volume: Tensor
    task: Tensor
    group: Tensor


class Hssl(nn.Module):
    """HSSL (Zheng et al., "Hierarchical self-supervised learning for medical image segmentation based on
    multi-domain data aggregation", MICCAI 2021, arXiv:2107.04886).

    On every attached map: NT-Xent between two views of an image, cross-entropy of its task and of its group;
    mean over the maps. Stage "encoder" trains the encoder; stage "joint" gives the backbone a decoder, which
    the weights file then holds and fine-tuning goes on with. The heads are thrown away.

    Args:
        backbone: encoder that is trained; gets a decoder where a decoder map is attached.
        config: settings, with the domains of the data.

    Raises:
        InputError: an attached map that the network does not have, or channels that do not fit it.
    """

    task_share: Tensor
    group_share: Tensor
    group_of: Tensor

    def __init__(self, backbone: Backbone, config: HsslConfig) -> None:
        super().__init__()
        encoder = cast(Encoder, backbone.encoder)
        self.backbone = backbone
        self.config = config
        self.attach = config.attach or default_attach(config.stage, len(encoder.levels))
        deep = [int(name[3:]) for name in self.attach if name.startswith("dec")]
        self.finest = min(deep, default=0)
        if deep:
            backbone.decoder = decoder = _decoder(encoder, config)
            # Blocks behind the last attached map learn nothing here; they are handed on as they were made.
            for blocks in (decoder.reduce, decoder.join):
                blocks[: self.finest].requires_grad_(False)
        channels = _channels(encoder, backbone.decoder if deep else None)
        for name in self.attach:
            if name not in channels:
                raise InputError(f"hssl: attach {name}: no such map; there are {', '.join(channels)}")
        tasks, groups = config.tasks or 1, config.groups or 1
        self.heads = nn.ModuleDict(
            {name: DomainHeads(channels[name], tasks, groups, config.dim) for name in self.attach}
        )
        self.weights = config.attach_weights or (1.0,) * len(self.attach)
        self.encoder_rate = config.encoder_rate
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
        self.register_buffer("task_share", torch.full((tasks,), 1 / tasks))
        self.register_buffer("group_share", torch.full((groups,), 1 / groups))
        self.register_buffer("group_of", torch.tensor(config.group_of or (0,) * tasks), persistent=False)

    def views(self, batch: Batch, generator: torch.Generator) -> HsslViews:
        """Two crops of a batch of source patches (B, C, *S); all randomness from ``generator``."""
        none = torch.zeros_like(batch.index)
        targets = batch.targets or {}
        pair = self.crops(batch.image, generator, batch.spacing)
        return HsslViews(pair, batch.index, targets.get("task", none), targets.get("group", none))

    def forward(self, views: HsslViews, step: int) -> Losses:
        """Mean over the attached maps of the weighted three levels."""
        config = self.config
        both = torch.cat(views.pair.images)  # (2B, C, *S)
        maps = self._maps(both)
        volume, task = gather_rows(views.volume), gather_rows(views.task)
        mask = self._may_repel(volume, task)
        weights = {"task": self._class_weights(self.task_share, task)}
        weights["group"] = self._class_weights(self.group_share, gather_rows(views.group))
        targets = {"task": views.task.repeat(2), "group": views.group.repeat(2)}
        total = both.new_zeros(())
        metrics: dict[str, Tensor] = {}
        for name, weight in zip(self.attach, self.weights, strict=True):
            scores: DomainScores = self.heads[name](maps[name])
            za, zb = (gather_rows(part) for part in scores.embedding.chunk(2))
            parts = {"image": nt_xent(za, zb, config.temperature, neg_mask=mask)}
            for level, logits in (("task", scores.task), ("group", scores.group)):
                parts[level] = _cross_entropy(logits, targets[level], weights[level])
            loss = (
                config.image_weight * parts["image"]
                + config.task_weight * parts["task"]
                + config.group_weight * parts["group"]
            )
            total = total + weight / sum(self.weights) * loss
            metrics |= {f"{name}/{level}": part.detach() for level, part in parts.items()}
            if name == self.attach[0]:
                metrics |= view_statistics(za, zb)
                metrics |= self._domain_accuracy(scores, targets)
        metrics["negatives"] = mask.sum(dim=1).float().mean() * 2
        return Losses(total, metrics)

    def _maps(self, x: Tensor) -> dict[str, Tensor]:
        pyramid = self.backbone(x)
        maps = {f"enc{number}": level for number, level in enumerate(pyramid, start=1)}
        if self.backbone.decoder is not None:
            decoded = cast(PyramidDecoder, self.backbone.decoder)(x, pyramid, finest=self.finest)
            maps |= {f"dec{number}": level for number, level in enumerate(decoded, start=self.finest)}
        return maps

    def _may_repel(self, volume: Tensor, task: Tensor) -> Tensor:
        """(B, B) bool, which images are negatives of which."""
        mask = ~torch.eye(len(volume), dtype=torch.bool, device=volume.device)
        if self.config.mask_same_volume:
            mask &= volume[:, None] != volume
        if self.config.negatives == "same_task":
            mask &= task[:, None] == task
        return mask

    def _class_weights(self, share: Tensor, drawn: Tensor) -> Tensor | None:
        """1 / (classes * share) per class; the running share first follows the classes drawn (B,)."""
        if not self.config.balance_classes:
            return None
        if self.training:
            now = torch.bincount(drawn, minlength=len(share)) / len(drawn)
            share.lerp_(now.to(share), _FORGETTING)
        return 1 / (len(share) * share.clamp(min=0.1 / len(share)))

    @torch.no_grad()
    def _domain_accuracy(self, scores: DomainScores, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {"task": scores.task.argmax(dim=1), "group": scores.group.argmax(dim=1)}
        summed = torch.zeros_like(scores.group, dtype=torch.float32)
        summed.index_add_(1, self.group_of, scores.task.float().softmax(dim=1))
        agreement = (summed.argmax(dim=1) == found["group"]).float().mean()
        right = {f"{level}_accuracy": (found[level] == targets[level]).float().mean() for level in found}
        return {**right, "hierarchy_agreement": agreement}


def _cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor | None) -> Tensor:
    """Weighted by class over the images of all processes, in single precision."""
    each = F.cross_entropy(logits.float(), target, reduction="none")
    return mean_over_world(each, torch.ones_like(each) if class_weights is None else class_weights[target])


def default_attach(stage: str, levels: int) -> tuple[str, ...]:
    """The bottleneck; in stage joint also the first and the last but one block of the decoder."""
    if stage == "encoder":
        return (f"enc{levels}",)
    return tuple(dict.fromkeys((f"enc{levels}", f"dec{levels - 1}", f"dec{min(1, levels - 1)}")))


def _decoder(encoder: Encoder, config: HsslConfig) -> PyramidDecoder:
    try:
        return PyramidDecoder(
            encoder.spatial_dims, encoder.in_channels, encoder.levels, config.decoder_channels
        )
    except ValueError as error:
        raise InputError(f"hssl: decoder_channels: {error}") from error


def _channels(encoder: Encoder, decoder: nn.Module | None) -> dict[str, int]:
    """Channels of every map by name."""
    found = {f"enc{number}": level.channels for number, level in enumerate(encoder.levels, start=1)}
    if decoder is not None:
        levels = cast("tuple[FeatureLevel, ...]", decoder.levels)
        found |= {f"dec{number}": level.channels for number, level in enumerate(levels)}
    return found


def build(config: HsslConfig, backbone: Backbone, modalities: int) -> Hssl:
    """The method over a backbone; it tells tasks and groups apart, not modalities."""
    return Hssl(backbone, config)
