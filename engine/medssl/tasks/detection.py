"""Boxes with scores, learned from boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from monai.data.box_utils import box_iou
from torch import Tensor

from medssl.config.detection import DetectionConfig
from medssl.losses.detection import box_loss, centre_focal_loss
from medssl.nets.boxes import Found, candidates, suppress
from medssl.nets.detection import DetectionNetwork
from medssl.protocols import Batch, Losses
from medssl.tasks.centres import centre_targets
from medssl.tasks.encoder_task import EncoderTask
from medssl.transforms.random_intensity import RandomIntensity
from medssl.transforms.spatial import apply, draw_orthogonal

CANDIDATES = 300
"""Best cells per level that enter the suppression."""

HIT = 0.1
"""IoU from which a box counts as found: small lesions in 3D (nnDetection)."""


@dataclass(frozen=True)
class DetectionViews:
    """Augmented patches.

    Args:
        image: (B, C, *S) in [0, 1].
        boxes: (B, M, 2 n) starts and stops in voxels of the patch.
        classes: (B, M) class index, -1 padding, -2 not judged.
    """

    image: Tensor
    boxes: Tensor
    classes: Tensor


class DetectionTask(EncoderTask[DetectionNetwork]):
    """Views -> encoder -> feature pyramid -> dense heads -> focal loss of centres and IoU of boxes.

    Args:
        network: encoder, pyramid and heads.
        config: targets, loss, augmentation, suppression.
        frozen_steps, freeze_statistics: see `EncoderTask`.
    """

    def __init__(
        self,
        network: DetectionNetwork,
        config: DetectionConfig,
        *,
        frozen_steps: int = 0,
        freeze_statistics: bool = True,
    ) -> None:
        super().__init__(network, frozen_steps=frozen_steps, freeze_statistics=freeze_statistics)
        self.config = config
        self.intensity = RandomIntensity(
            gamma_p=0.3, linear_p=0.3, blur_p=0.15, blur_range=(0.1, 0.7), noise_p=0.2, noise_sd=0.03
        ) if config.intensity else None  # fmt: skip

    def views(self, batch: Batch, generator: torch.Generator) -> DetectionViews:
        """Augment patches: image and boxes are flipped together, intensities change in the image alone.

        Raises:
            ValueError: the batch has no boxes.
        """
        if batch.targets is None or "boxes" not in batch.targets:
            raise ValueError("detection needs boxes")
        image, boxes = batch.image, batch.targets["boxes"]
        if self.config.flip:
            flips = draw_orthogonal(len(image), image.ndim - 2, generator, rotate=False)
            image, boxes = apply(image, flips), flip_boxes(boxes, flips.flip, image.shape[2:])
        if self.intensity is not None:
            image = self.intensity(image, generator)
        return DetectionViews(image, boxes, batch.targets["classes"])

    def forward(self, views: DetectionViews, step: int) -> Losses:
        """The loss of one step."""
        with self.encoder_learns(step):
            pyramid = self.backbone(views.image)
        levels = self.network.find(pyramid)
        targets = centre_targets(
            views.boxes,
            views.classes,
            [level.logits.shape[2:] for level in levels],
            [level.stride for level in levels],
            class_count=levels[0].logits.shape[1],
            cells_per_box=self.config.cells_per_box,
            blur=self.config.blur,
        )
        focal, hits = views.image.new_zeros(()), views.image.new_zeros(())
        drawn, wanted, weights = [], [], []
        for level, target in zip(levels, targets, strict=True):
            focal = focal + centre_focal_loss(
                level.logits, target.heat, target.judged, self.config.alpha, self.config.beta
            )
            hits = hits + (target.heat == 1).sum()
            chosen = target.weight > 0
            drawn.append(level.boxes().movedim(1, -1)[chosen])
            wanted.append(target.box.movedim(1, -1)[chosen])
            weights.append(target.weight[chosen])
        focal = focal / hits.clamp(min=1)
        box = box_loss(torch.cat(drawn), torch.cat(wanted), torch.cat(weights))
        total = focal + self.config.box_weight * box
        return Losses(total, {"focal": focal.detach(), "box": box.detach()})

    @torch.no_grad()
    def found(self, x: Tensor) -> list[Found]:
        """(B, C, *S) in [0, 1] -> boxes of every image, best first."""
        config = self.config
        return [
            suppress(own, config.suppression, config.most_boxes)
            for own in candidates(self.network(x), config.least_score, CANDIDATES)
        ]

    def predict(self, x: Tensor) -> Tensor:
        """(B, C, *S) in [0, 1] -> (B, most_boxes, 2 n + 2): box, score, class; score 0 is padding."""
        result = x.new_zeros((len(x), self.config.most_boxes, 2 * (x.ndim - 2) + 2))
        for sample, own in enumerate(self.found(x)):
            rows = torch.cat([own.boxes, own.scores[:, None], own.classes[:, None].to(own.boxes)], dim=1)
            result[sample, : len(own)] = rows
        return result

    @torch.no_grad()
    def metrics(self, prediction: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Share of the true boxes that are found, and of the found boxes that are true, at IoU 0.1.

        Args:
            prediction: (B, N, 2 n + 2) from `predict`.
            target: (B, M, 2 n + 1): box and class, class below 0 is padding.
        """
        hits = true = right = all_found = prediction.new_zeros(())
        for own, truth in zip(prediction, target, strict=True):
            ours, known = own[own[:, -2] > 0], truth[truth[:, -1] >= 0]
            true, all_found = true + len(known), all_found + len(ours)
            if len(ours) and len(known):
                overlap = torch.as_tensor(box_iou(ours[:, :-2], known[:, :-1]))
                touch = (overlap >= HIT) & (ours[:, -1:] == known[:, -1])
                hits, right = hits + touch.any(dim=0).sum(), right + touch.any(dim=1).sum()
        return {"recall": hits / true, "precision": right / all_found}


def flip_boxes(boxes: Tensor, flip: Tensor, shape: torch.Size) -> Tensor:
    """Boxes (B, M, 2 n) after the flips (B, n) of images of ``shape`` voxels."""
    n = len(shape)
    size = boxes.new_tensor(shape)
    low, high, turned = boxes[..., :n], boxes[..., n:], flip[:, None]
    return torch.cat([torch.where(turned, size - high, low), torch.where(turned, size - low, high)], dim=-1)
