"""A class per voxel, learned from dense masks or from scribbles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from monai.losses.dice import MaskedDiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.config.segmentation import SegmentationConfig
from medssl.nets.segmentation import SegmentationNetwork
from medssl.protocols import Batch, Losses
from medssl.tasks.encoder_task import EncoderTask
from medssl.transforms.affine import draw_affine, move
from medssl.transforms.random_intensity import RandomIntensity
from medssl.transforms.spatial import apply, draw_orthogonal

UNLABELLED = -1
MOVE_PROBABILITY = 0.3
"""Share of patches that are turned and zoomed (nnU-Net: 0.2 for each)."""


@dataclass(frozen=True)
class SegmentationViews:
    """Augmented patches.

    Args:
        image: (B, C, *S) in [0, 1].
        label: (B, 1, *S) class index, -1 unlabelled.
    """

    image: Tensor
    label: Tensor


class DiceCrossEntropy(nn.Module):
    """Cross-entropy plus weighted Dice loss over the labelled voxels of a batch.

    Dice is MONAI's, over the whole batch, so that a class absent from one patch costs nothing there.
    Voxels labelled -1 take part in neither term: a few scribbles are legal training data.

    Args:
        dice_weight: weight of the Dice term.
    """

    def __init__(self, dice_weight: float = 1.0) -> None:
        super().__init__()
        self.dice_weight = dice_weight
        self.dice = MaskedDiceLoss(batch=True, include_background=True, smooth_nr=1.0, smooth_dr=1.0)

    def forward(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and Dice loss, both scalar; zero where nothing is labelled.

        Args:
            logits: (B, K, *S).
            label: (B, 1, *S) class index, -1 unlabelled.
        """
        known = label != UNLABELLED
        total = F.cross_entropy(logits, label[:, 0], ignore_index=UNLABELLED, reduction="sum")
        cross_entropy = total / known.sum().clamp(min=1)
        probabilities = logits.softmax(dim=1)
        target = F.one_hot(label[:, 0].clamp(min=0), logits.shape[1]).movedim(-1, 1).to(probabilities)
        return cross_entropy, self.dice(probabilities, target, mask=known)


class SegmentationTask(EncoderTask[SegmentationNetwork]):
    """Views -> encoder -> decoder -> logits -> Dice and cross-entropy.

    Args:
        network: encoder, decoder and classifier.
        config: loss and augmentation.
        frozen_steps, freeze_statistics: see `EncoderTask`.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        config: SegmentationConfig,
        *,
        frozen_steps: int = 0,
        freeze_statistics: bool = True,
    ) -> None:
        super().__init__(network, frozen_steps=frozen_steps, freeze_statistics=freeze_statistics)
        self.loss = DiceCrossEntropy(config.dice_weight)
        self.intensity = _intensity() if config.intensity else None
        self.rotation = config.rotation
        self.scaling = config.scaling
        self.flip = config.flip

    def views(self, batch: Batch, generator: torch.Generator) -> SegmentationViews:
        """Augment patches: image and label move together, intensities change in the image alone.

        Raises:
            ValueError: the batch has no labels.
        """
        if batch.label is None:
            raise ValueError("segmentation needs labels")
        image, label = batch.image, batch.label
        count, shape = len(image), tuple(image.shape[2:])
        if self.rotation > 0 or self.scaling > 1:
            boxes = draw_affine(
                count, shape, generator, angle=self.rotation, scaling=self.scaling, p=MOVE_PROBABILITY
            )
            image, label = move(image, label, boxes)
        if self.flip:
            flips = draw_orthogonal(count, len(shape), generator, rotate=False)
            image, label = apply(image, flips), apply(label, flips)
        if self.intensity is not None:
            image = self.intensity(image, generator)
        return SegmentationViews(image, label)

    def forward(self, views: SegmentationViews, step: int) -> Losses:
        """The loss of one step; deep levels count half of the level above them."""
        with self.encoder_learns(step):
            pyramid = self.backbone(views.image)
        levels = self.network.classify(views.image, pyramid)
        weights = [0.5**i for i in range(len(levels))]
        total = views.image.new_zeros(())
        metrics: dict[str, Tensor] = {}
        for weight, logits in zip(weights, levels, strict=True):
            cross_entropy, dice = self.loss(logits, views.label)
            total = total + weight / sum(weights) * (cross_entropy + self.loss.dice_weight * dice)
            if not metrics:
                metrics = {"cross_entropy": cross_entropy.detach(), "dice_loss": dice.detach()}
        return Losses(total, metrics)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """(B, C, *S) in [0, 1] -> class probabilities (B, K, *S)."""
        logits: Tensor = self.network(x)
        return logits.softmax(dim=1)

    @torch.no_grad()
    def metrics(self, prediction: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Dice per class over the labelled voxels, NaN where a class is in neither.

        Args:
            prediction: (B, K, *S) probabilities.
            target: (B, 1, *S) class index, -1 unlabelled.
        """
        known = target[:, 0] != UNLABELLED
        ours, truth = prediction.argmax(dim=1)[known], target[:, 0][known]
        scores = {}
        for index in range(prediction.shape[1]):
            a, b = ours == index, truth == index
            scores[f"dice_{index}"] = 2 * (a & b).sum() / (a.sum() + b.sum())
        return scores


def layer_scale(stage_names: Sequence[Sequence[str]], encoder_rate: float, decay: float) -> dict[str, float]:
    """Learning-rate factors by parameter prefix: the deeper below the output, the smaller.

    What comes from elsewhere (encoder, linear probe) learns slower than the new decoder.

    Args:
        stage_names: prefixes of the parameters of each stage of the encoder, finest first.
        encoder_rate: factor of the coarsest stage, the nearest to the decoder.
        decay: further factor per stage towards the image.
    """
    count = len(stage_names)
    scale = {
        f"network.backbone.encoder.{name}": encoder_rate * decay ** (count - 1 - i)
        for i, names in enumerate(stage_names)
        for name in names
    }
    return {**scale, "network.linear.": encoder_rate}


def _intensity() -> RandomIntensity:
    return RandomIntensity(
        gamma_p=0.3, linear_p=0.3, blur_p=0.15, blur_range=(0.1, 1.0), noise_p=0.2, noise_sd=0.05
    )
