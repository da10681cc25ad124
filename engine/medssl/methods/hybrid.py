"""Hybrid training: any self-supervised method, with labels where there are some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.config.hybrid import HybridConfig
from medssl.losses.gathering import mean_over_world
from medssl.nets.dense import DenseFeatures, resize
from medssl.protocols import Batch, Encoder, Losses, Trainable
from medssl.transforms.correspondence import turned
from medssl.transforms.crops import crop
from medssl.transforms.multicrop import MultiCrop
from medssl.transforms.view_intensity import ViewIntensity


@dataclass(frozen=True)
class HybridViews:
    """What the method sees, and the labelled crop.

    Args:
        method: views of the self-supervised method.
        image: (B, C, *size) one crop per sample.
        classes: (B, K) 1 or 0 per class, -1 in all of an unlabelled sample; None without a class loss.
        label: (B, *size) class index, -1 unlabelled; None without a dense loss.
    """

    method: Any
    image: Tensor
    classes: Tensor | None
    label: Tensor | None


class Hybrid(nn.Module):
    """A method and linear heads over one backbone: a weighted sum of their losses.

    The class head reads the mean of the coarsest level, before any projection; the dense head the dense
    feature (levels of stride >= 4), its logits brought to voxels. Unlabelled samples pass too, so that
    batch statistics are those of the batch, but count for nothing in these losses. The heads' losses reach
    the backbone, never the method's prototypes or projections.

    Args:
        method: the self-supervised method; it sees the whole batch, labelled or not.
        config: weights, schedule and the labelled crop.
        classes: number K of classes of volumes; needed with a class loss.
        labels: number of classes in the masks; needed with a dense loss.
        multilabel: whether a volume may have several classes (binary cross entropy per class).

    Raises:
        ValueError: a loss without its classes.

    Reference: Ghesu et al., arXiv:2201.01283, 2022: hybrid self-supervised and supervised learning.
    """

    def __init__(
        self,
        method: nn.Module,
        config: HybridConfig,
        *,
        classes: int = 0,
        labels: int = 0,
        multilabel: bool = False,
    ) -> None:
        super().__init__()
        if (config.class_weight and classes < 1) or (config.dense_weight and labels < 2):
            raise ValueError(f"{classes} classes and {labels} labels are too few for the losses asked for")
        self.backbone = cast("nn.Module", method.backbone)
        self.method = method
        self.config = config
        self.multilabel = multilabel
        encoder = cast(Encoder, self.backbone.encoder)
        self.dense = DenseFeatures(encoder.levels)
        self.class_head = nn.Linear(encoder.levels[-1].channels, classes) if config.class_weight else None
        self.dense_head = nn.Linear(self.dense.in_channels, labels) if config.dense_weight else None
        if config.size is None:
            raise ValueError("size: the edge of the labelled crop is not known")
        size = (config.size,) * encoder.spatial_dims
        self.crops = MultiCrop(
            size, size, global_count=1, local_count=0, global_scale=config.scale, aspect=config.aspect
        )
        self.intensity = ViewIntensity.of(config.intensity.model_dump())
        self._steps: int | None = None

    def plan(self, steps: int) -> None:
        """Stretch the schedule of the balance over ``steps``."""
        self._steps = steps
        hook = getattr(self.method, "plan", None)
        if hook is not None:
            hook(steps)

    def balance(self, step: int) -> float:
        """Weight of the self-supervised loss at a step."""
        config = self.config
        if not config.decay or self._steps is None:
            return config.balance
        left = (self._steps - step) / (config.decay * self._steps)
        return config.balance * min(1.0, max(0.0, left))

    def views(self, batch: Batch, generator: torch.Generator) -> HybridViews:
        """The method's views, then one crop with its labels; all randomness from ``generator``."""
        method = cast(Trainable, self.method).views(batch, generator)
        x = batch.image
        (drawn,) = self.crops.draw(len(x), tuple(x.shape[2:]), generator)
        box = turned(
            drawn,
            generator,
            self.config.turn_p,
            quarters=self.config.quarter_turns,
            axes=self.config.mirror_axes,
        )
        (image,) = crop(x, [box], self.crops.global_size)
        length = batch.spacing * torch.tensor(x.shape[2:]).to(batch.spacing)
        image = self.intensity(image, generator, box.voxel(length, image.shape[2:]))
        classes = label = None
        if self.class_head is not None and batch.targets is not None:
            classes = batch.targets["class"]
        if self.dense_head is not None and batch.label is not None:
            label = crop(batch.label, [box], self.crops.global_size, mode="nearest")[0][:, 0]
        return HybridViews(method, image, classes, label)

    def forward(self, views: HybridViews, step: int) -> Losses:
        """The weighted sum; metrics of the method under their own names, the others under ``supervised/``."""
        losses: Losses = self.method(views.method, step)
        balance = self.balance(step)
        total = balance * losses.total
        metrics = {**losses.metrics, "method/loss": losses.total.detach(), "balance": torch.tensor(balance)}
        pyramid = self.backbone(views.image)
        if self.class_head is not None and views.classes is not None:
            logits = self.class_head(pyramid[-1].flatten(2).mean(2))  # (B, K)
            loss, accuracy = self._class_loss(logits, views.classes)
            total = total + self.config.class_weight * loss
            metrics |= {"supervised/class_loss": loss.detach(), "supervised/class_accuracy": accuracy}
        if self.dense_head is not None and views.label is not None:
            cells = self.dense_head(self.dense.concatenated(pyramid).movedim(1, -1)).movedim(-1, 1)
            voxels = resize(cells, views.label.shape[1:])  # (B, K, *size)
            used = views.label >= 0
            loss = mean_over_world(F.cross_entropy(voxels, views.label.clamp(min=0), reduction="none"), used)
            right = (voxels.argmax(1) == views.label).float()
            total = total + self.config.dense_weight * loss
            metrics |= {
                "supervised/dense_loss": loss.detach(),
                "supervised/dense_accuracy": mean_over_world(right, used),
            }
        return Losses(total, metrics)

    def after_backward(self, step: int) -> None:
        """What the method does there."""
        hook = getattr(self.method, "after_backward", None)
        if hook is not None:
            hook(step)

    def exported(self) -> Mapping[str, nn.Module]:
        """What the method exports; the heads stay in the checkpoint."""
        exported = getattr(self.method, "exported", None)
        return {} if exported is None else cast("Mapping[str, nn.Module]", exported())

    def _class_loss(self, logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        used = (classes >= 0).all(dim=1)
        target = classes.clamp(min=0)
        if self.multilabel:
            each = F.binary_cross_entropy_with_logits(logits, target.to(logits), reduction="none").mean(1)
            right = ((logits > 0) == target.bool()).float().mean(1)
        else:
            each = F.cross_entropy(logits, target.argmax(1), reduction="none")
            right = (logits.argmax(1) == target.argmax(1)).float()
        return mean_over_world(each, used), mean_over_world(right, used).detach()
