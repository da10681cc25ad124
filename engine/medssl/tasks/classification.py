"""Classes of a whole image: one of several, or several at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.config.classification import ClassificationConfig
from medssl.nets.classification import ClassificationNetwork
from medssl.protocols import Batch, Losses
from medssl.tasks.encoder_task import EncoderTask
from medssl.transforms.random_intensity import RandomIntensity
from medssl.transforms.spatial import apply, draw_orthogonal


@dataclass(frozen=True)
class ClassificationViews:
    """Augmented images.

    Args:
        image: (B, C, *S) in [0, 1].
        target: (B, K) float, 1 where a class is true.
    """

    image: Tensor
    target: Tensor


class ClassificationTask(EncoderTask[ClassificationNetwork]):
    """Views -> encoder -> pooled features -> logits -> cross-entropy; per class where several may be true.

    Args:
        network: encoder and linear map.
        config: augmentation.
        multi_label: whether several classes may be true at once.
        frozen_steps, freeze_statistics: see `EncoderTask`.
    """

    def __init__(
        self,
        network: ClassificationNetwork,
        config: ClassificationConfig,
        *,
        multi_label: bool = False,
        frozen_steps: int = 0,
        freeze_statistics: bool = True,
    ) -> None:
        super().__init__(network, frozen_steps=frozen_steps, freeze_statistics=freeze_statistics)
        self.config = config
        self.multi_label = multi_label
        self.intensity = RandomIntensity(
            gamma_p=0.3, linear_p=0.3, blur_p=0.15, blur_range=(0.1, 1.0), noise_p=0.2, noise_sd=0.05
        ) if config.intensity else None  # fmt: skip

    def views(self, batch: Batch, generator: torch.Generator) -> ClassificationViews:
        """Augment images.

        Raises:
            ValueError: the batch has no classes.
        """
        if batch.targets is None or "class" not in batch.targets:
            raise ValueError("classification needs classes")
        image = batch.image
        if self.config.flip:
            image = apply(image, draw_orthogonal(len(image), image.ndim - 2, generator, rotate=False))
        if self.intensity is not None:
            image = self.intensity(image, generator)
        return ClassificationViews(image, batch.targets["class"])

    def forward(self, views: ClassificationViews, step: int) -> Losses:
        """The loss of one step."""
        with self.encoder_learns(step):
            pyramid = self.network.see(views.image)
        logits = self.network.classification(self.network.pool(pyramid))
        if self.multi_label:
            loss = F.binary_cross_entropy_with_logits(logits, views.target)
        else:
            loss = F.cross_entropy(logits, views.target)
        return Losses(loss, {"cross_entropy": loss.detach()})

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """(B, C, *S) in [0, 1] -> probabilities (B, K); they add up to 1 unless several may be true."""
        logits: Tensor = self.network(x)
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)

    @torch.no_grad()
    def metrics(self, prediction: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Accuracy: of the most likely class, or over all classes where several may be true.

        Args:
            prediction: (B, K) probabilities.
            target: (B, K), 1 where a class is true.
        """
        if self.multi_label:
            right = (prediction > 0.5) == (target > 0.5)
        else:
            right = prediction.argmax(dim=1) == target.argmax(dim=1)
        return {"accuracy": right.float().mean()}
