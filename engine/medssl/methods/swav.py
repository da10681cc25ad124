"""SwAV-medical: online clustering of pooled crops, and of cells at the same place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from medssl.config.swav import SwavConfig
from medssl.methods.clustering import Clustering
from medssl.nets.backbone import Backbone
from medssl.nets.dense import DenseFeatures
from medssl.protocols import Batch, Encoder, Losses
from medssl.transforms.correspondence import sample_levels, shared_places, turned
from medssl.transforms.crops import CropBoxes, crop
from medssl.transforms.multicrop import MultiCrop
from medssl.transforms.synthesis import random_label_maps, render
from medssl.transforms.view_intensity import ViewIntensity


@dataclass(frozen=True)
class SwavViews:
    """Crops of one batch.

    Args:
        crops: (B, C, *size) each, two global ones first, intensities augmented independently.
        boxes: where each lies in the source, flips and quarter turns included.
        modality: (B,) modality of each sample.
        places: (B, P, n) image coordinates seen by both global crops; None without cell mode.
        seen: (B, P) bool, whether a place really lies in both.
    """

    crops: list[Tensor]
    boxes: list[CropBoxes]
    modality: Tensor
    places: Tensor | None
    seen: Tensor | None


class Swav(nn.Module):
    """SwAV (Caron et al. 2020) on medical images (Ghesu et al. 2022, arXiv:2201.01283).

    Views: multi-crop, rotated and mirrored; then energy bands, tone, gamma, linear, bias,
    blur, noise.
    Pooled crops: the coarsest level, averaged, is clustered; each crop predicts the codes of the global ones.
    Cells (our dense variant): places that both global crops see are clustered by their dense feature.

    Args:
        backbone: encoder that is trained.
        modalities: number of modalities in the data.
        config: settings.
    """

    def __init__(self, backbone: Backbone, modalities: int, config: SwavConfig) -> None:
        super().__init__()
        encoder = cast(Encoder, backbone.encoder)
        self.backbone = backbone
        self.config = config
        self.dense = DenseFeatures(encoder.levels)
        self.generated = modalities  # the modality of generated volumes comes after those of the data
        weights = config.prototype_weights(modalities + (config.synthetic > 0))
        modes = (weights, config.crops, config.modality_mode, config.softmax_over)
        self.crops = Clustering(encoder.levels[-1].channels, *modes) if config.crops.weight else None
        modes = (weights, config.cells, config.modality_mode, config.softmax_over)
        self.cells = Clustering(self.dense.in_channels, *modes) if config.cells.weight else None
        n = encoder.spatial_dims
        self.multicrop = MultiCrop(
            (config.global_size,) * n,
            (config.local_size,) * n,
            local_count=config.local_count if config.crops.weight else 0,
            global_scale=config.global_scale,
            local_scale=config.local_scale,
            aspect=config.aspect,
            angle=config.rotation,
        )
        self.intensity = ViewIntensity.of(config.intensity.model_dump())

    def views(self, batch: Batch, generator: torch.Generator) -> SwavViews:
        """Crops of a batch of source patches (B, C, *S); all randomness from ``generator``."""
        first, second, modality = self._sources(batch, generator)
        boxes = self.multicrop.draw(len(first), tuple(first.shape[2:]), generator)
        turn_p, quarters, axes = self.config.turn_p, self.config.quarter_turns, self.config.mirror_axes
        boxes = [turned(box, generator, turn_p, quarters=quarters, axes=axes) for box in boxes]
        if second is first:
            crops = self.multicrop.apply(first, boxes).images
        else:
            size, local = self.multicrop.global_size, self.multicrop.local_size
            crops = [*crop(first, boxes[:1], size), *crop(second, boxes[1:2], size)]
            crops += crop(first, boxes[2:], local) if len(boxes) > 2 else []
        length = batch.spacing * torch.tensor(first.shape[2:]).to(batch.spacing)
        crops = [
            self.intensity(view, generator, box.voxel(length, view.shape[2:]))
            for view, box in zip(crops, boxes, strict=True)
        ]
        if self.cells is None:
            return SwavViews(crops, boxes, modality, None, None)
        places, seen = shared_places(first, boxes[0], boxes[1], self.config.cells_per_crop, generator)
        return SwavViews(crops, boxes, modality, places.to(first.device), seen.to(first.device))

    def forward(self, views: SwavViews, step: int) -> Losses:
        """Weighted sum of the pooled and the cell loss, with collapse alarms as metrics."""
        for part in (self.crops, self.cells):
            # They begin as unit vectors; normalising frozen ones would move them by rounding.
            if part is not None and self.training and step >= self.config.freeze_prototypes_steps:
                part.prototypes.normalize_()
        count = len(views.modality)
        pyramid = self.backbone(torch.cat(views.crops[:2]))  # both global crops in one pass
        globals_ = [[level[v * count : (v + 1) * count] for level in pyramid] for v in range(2)]
        total = pyramid[-1].new_zeros(())
        metrics: dict[str, Tensor] = {}
        if self.crops is not None:
            pooled = [level[-1].flatten(2).mean(2) for level in globals_]  # each (B, C)
            if len(views.crops) > 2:
                local = self.backbone(torch.cat(views.crops[2:]))[-1].flatten(2).mean(2)
                pooled += list(local.split(count))
            losses = self.crops(pooled, views.modality, step)
            total = total + self.config.crops.weight * losses.total
            metrics |= _named("crops", losses)
        if self.cells is not None and views.places is not None and views.seen is not None:
            cells = [
                sample_levels(self.dense.normalized(level), box, views.places)[views.seen]
                for level, box in zip(globals_, views.boxes, strict=False)
            ]  # each (N, sum C)
            owner = views.modality[:, None].expand_as(views.seen)[views.seen]
            losses = self.cells(cells, owner, step)
            total = total + self.config.cells.weight * losses.total
            metrics |= _named("cells", losses)
        return Losses(total, metrics)

    def after_backward(self, step: int) -> None:
        """Keep the prototypes where they are during the first steps (SwAV, section 4)."""
        if step < self.config.freeze_prototypes_steps:
            for part in (self.crops, self.cells):
                if part is not None:
                    part.prototypes.weight.grad = None

    def exported(self) -> Mapping[str, nn.Module]:
        """Head and prototypes of the cells, for the prototype map; those of the crops are of whole crops."""
        return {} if self.cells is None else {"head": self.cells.head, "prototypes": self.cells.prototypes}

    def prototype_blocks(self) -> list[tuple[int, int]]:
        """Range of the exported prototypes per modality of the data; none where all may use all."""
        part = self.cells
        if part is None or part.mode != "partitioned":
            return []
        return [(part.blocks[m].start, part.blocks[m].stop) for m in range(self.generated)]

    def _sources(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """What the first and the second view are cut from, and the modality of each sample."""
        x, modality = batch.image, batch.modality
        count = round(self.config.synthetic * len(x))
        if count == 0:
            return x, x, modality
        labels = random_label_maps(count, tuple(x.shape[2:]), generator)
        rendered = [render(labels, generator).to(x).expand(-1, x.shape[1], *x.shape[2:]) for _ in range(2)]
        # The last samples give way: samplers draw families in random order.
        first, second = (torch.cat([x[:-count], image]) for image in rendered)
        return first, second, torch.cat([modality[:-count], modality.new_full((count,), self.generated)])


def build(config: SwavConfig, backbone: Backbone, modalities: int) -> Swav:
    """The method over a backbone, for data of ``modalities`` modalities."""
    return Swav(backbone, modalities, config)


def _named(part: str, losses: Losses) -> dict[str, Tensor]:
    return {f"{part}/loss": losses.total.detach()} | {
        f"{part}/{name}": value for name, value in losses.metrics.items()
    }
