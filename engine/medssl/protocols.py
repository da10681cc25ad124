"""The few shapes that rooms agree on; no base class to inherit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureLevel:
    """One level of a feature pyramid: channels, and input voxels per cell along each axis."""

    channels: int
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Samples as the data room hands them to a method or a task.

    Args:
        image: (B, C, *S) float32, normalised to [0, 1] (``medssl.volume.normalize``).
        spacing: (B, n) float32, mm per voxel in array order.
        modality: (B,) int64, index into the modalities of the data set.
        index: (B,) int64, row of the volume in the data set: equal for crops of one volume.
        label: (B, 1, *S) int64 class per voxel, -1 where unlabelled; None without labels.
        targets: further targets by name (class, task, group, boxes), each with first axis B.
    """

    image: Tensor
    spacing: Tensor
    modality: Tensor
    index: Tensor
    label: Tensor | None = None
    targets: Mapping[str, Any] | None = None

    def to(self, device: torch.device | str) -> Self:
        """The same batch on ``device``."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = _to(moved, device)
        if self.targets is not None:
            moved["targets"] = _to(self.targets, device)
        return replace(self, **moved)


def _to(values: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in values.items()}


@dataclass(frozen=True)
class Losses:
    """What a step returns: the scalar to minimise, and numbers to watch (detached)."""

    total: Tensor
    metrics: Mapping[str, Tensor]


@runtime_checkable
class Encoder(Protocol):
    """(B, C, *S) -> feature pyramid, finest level first; S a multiple of the coarsest stride."""

    levels: tuple[FeatureLevel, ...]
    spatial_dims: int
    in_channels: int

    def __call__(self, x: Tensor) -> list[Tensor]:
        """The feature maps, one per level."""
        ...


@runtime_checkable
class Trainable(Protocol):
    """What the training loop needs: parameters in an `nn.Module`, views, and a loss per step.

    ``backbone`` holds ``encoder`` and maybe ``decoder``. ``views`` draws all randomness from
    ``generator`` and runs on the batch's device. ``forward`` takes the views and the global step.
    A trainable may also have ``after_backward(step)``, called between backward and optimiser step,
    ``plan(steps)``, called before the first step with the number of all steps, for schedules, and
    ``exported() -> Mapping[str, nn.Module]``: the modules beside the backbone that belong into a weights
    file, by the name they have there ("head", "prototypes"). ``sees_corrupted`` is true where training
    shows masked or corrupted images: the running statistics are then measured on whole ones for the export.
    """

    backbone: nn.Module

    def views(self, batch: Batch, generator: torch.Generator) -> Any:
        """Crops and augmentations of one batch."""
        ...

    def __call__(self, views: Any, step: int) -> Losses:
        """The loss of one step."""
        ...


@runtime_checkable
class Task(Trainable, Protocol):
    """A trainable with labels: it also predicts, and says how good a prediction is."""

    def predict(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> what the task is about, e.g. class probabilities (B, K, *S)."""
        ...

    def metrics(self, prediction: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Named scalars that compare a prediction with its target; higher is better."""
        ...
