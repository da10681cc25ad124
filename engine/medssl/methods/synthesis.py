"""Randomised synthesis: features that know the label of a generated volume whatever its contrast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from medssl.config.synthesis import SynthesisConfig
from medssl.losses.contrastive import supervised_contrast
from medssl.nets.backbone import Backbone
from medssl.nets.dense import DenseFeatures
from medssl.nets.heads import ProjectionHead
from medssl.protocols import Batch, Encoder, Losses
from medssl.transforms.correspondence import random_places, sample_levels, turned
from medssl.transforms.crops import CropBoxes, crop
from medssl.transforms.multicrop import MultiCrop
from medssl.transforms.synthesis import random_label_maps, render
from medssl.transforms.view_intensity import ViewIntensity


@dataclass(frozen=True)
class SynthesisViews:
    """Two contrasts of generated volumes.

    Args:
        crops: two (B, C, *size), rendered, cut and augmented independently.
        boxes: where each lies in its volume, flips and quarter turns included.
        places: (B, P, n) coordinates in the volume, most of them seen by both crops.
        labels: (B, P) label there, -1 where a place does not lie in both crops.
    """

    crops: list[Tensor]
    boxes: list[CropBoxes]
    places: Tensor
    labels: Tensor


class Synthesis(nn.Module):
    """Supervised contrast of cells on generated label maps, each seen in two contrasts.

    After Dey et al., "Learning general-purpose biomedical volume representations using randomized
    synthesis", ICLR 2025. No real image is used: a batch gives only the number, channels and spacing of the
    volumes. All cells of one label, in either view of a volume, are positives of each other.

    Args:
        backbone: encoder that is trained.
        config: settings.
    """

    def __init__(self, backbone: Backbone, config: SynthesisConfig) -> None:
        super().__init__()
        encoder = cast(Encoder, backbone.encoder)
        self.backbone = backbone
        self.config = config
        self.dense = DenseFeatures(encoder.levels)
        self.head = ProjectionHead(self.dense.in_channels, config.hidden, config.dim)
        size = (config.global_size,) * encoder.spatial_dims
        self.multicrop = MultiCrop(
            size, size, local_count=0, global_scale=config.global_scale, aspect=config.aspect
        )
        widest = config.global_scale[1] ** (1 / encoder.spatial_dims)
        self.volume_size = config.volume_size or math.ceil(config.global_size / widest)
        self.intensity = ViewIntensity.of(config.intensity.model_dump())

    def views(self, batch: Batch, generator: torch.Generator) -> SynthesisViews:
        """Volumes in the number, channels and spacing of the batch (B, C, *S), whatever its size."""
        count, channels, *space = batch.image.shape
        shape = [self.volume_size] * len(space)
        labels = random_label_maps(count, shape, generator)
        boxes = [
            turned(
                box,
                generator,
                self.config.turn_p,
                quarters=self.config.quarter_turns,
                axes=self.config.mirror_axes,
            )
            for box in self.multicrop.draw(count, tuple(shape), generator)
        ]
        length = batch.spacing * torch.tensor(shape).to(batch.spacing)
        crops = []
        for box in boxes:
            image = render(labels, generator).expand(-1, channels, *shape)
            (view,) = crop(image.to(batch.image), [box], self.multicrop.global_size)
            crops.append(self.intensity(view, generator, box.voxel(length, view.shape[2:])))
        places, seen = random_places(boxes[0], boxes[1], self.config.cells_per_crop, generator)
        at = torch.where(seen, _labels_at(labels, places.to(labels.device)), -1)
        device = batch.image.device
        return SynthesisViews(crops, boxes, places.to(device), at.to(device))

    def forward(self, views: SynthesisViews, step: int) -> Losses:
        """Contrast inside each volume; how often the nearest cell of the other view has the same label."""
        count = len(views.labels)
        pyramid = self.backbone(torch.cat(views.crops))
        cells = torch.cat(
            [
                sample_levels(
                    self.dense.normalized([level[v * count : (v + 1) * count] for level in pyramid]),
                    box,
                    views.places,
                )
                for v, box in enumerate(views.boxes)
            ],
            dim=1,
        )  # (B, 2P, sum C)
        z = self.head(cells.flatten(0, 1)).unflatten(0, cells.shape[:2])
        loss = supervised_contrast(z, views.labels.repeat(1, 2), self.config.temperature)
        with torch.no_grad():
            first, second = z.chunk(2, dim=1)
            used = views.labels >= 0
            nearest = (first @ second.mT).masked_fill(~used[:, None], -torch.inf).argmax(dim=2)
            right = (views.labels.gather(1, nearest) == views.labels)[used]
            metrics = {
                "match_accuracy": right.float().mean(),
                "feature_spread": z.flatten(0, 1).std(dim=0).mean() * self.config.dim**0.5,
            }
        return Losses(loss, metrics)

    def exported(self) -> dict[str, nn.Module]:
        """The projection head."""
        return {"head": self.head}


def build(config: SynthesisConfig, backbone: Backbone, modalities: int) -> Synthesis:
    """The method over a backbone; generated volumes have no modality."""
    return Synthesis(backbone, config)


def _labels_at(labels: Tensor, places: Tensor) -> Tensor:
    """Label (B, P) of the voxel of (B, *S) that each place (B, P, n) lies in."""
    shape = torch.tensor(labels.shape[1:], device=places.device)
    index = (places * shape).long().clamp(min=0).minimum(shape - 1)
    flat = torch.zeros(places.shape[:2], dtype=torch.long, device=places.device)
    for axis, size in enumerate(labels.shape[1:]):
        flat = flat * size + index[..., axis]
    return labels.flatten(1).gather(1, flat)
