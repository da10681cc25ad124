"""A task with labels and a method without, over one backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from medssl.nets.backbone import Backbone
from medssl.nets.momentum import MomentumCopy, take_modes
from medssl.protocols import Batch, Losses


@dataclass(frozen=True)
class PairedBatch(Batch):
    """A labelled batch with an unlabelled one beside it.

    Args:
        unlabelled: for the method.
    """

    unlabelled: Batch | None = None

    def to(self, device: torch.device | str) -> Self:
        """Both on ``device``."""
        moved = super().to(device)
        return replace(moved, unlabelled=None if self.unlabelled is None else self.unlabelled.to(device))


class Source(Protocol):
    """What gives batches by number."""

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batch ``start``, ``start + 1``, ... without end."""
        ...


class PairedLoader:
    """Batches of two loaders side by side, both functions of the step.

    Args:
        labelled: for the task.
        unlabelled: for the method.
    """

    def __init__(self, labelled: Source, unlabelled: Source) -> None:
        self.labelled = labelled
        self.unlabelled = unlabelled

    def batches(self, start: int = 0) -> Iterator[PairedBatch]:
        """Batch ``start``, ``start + 1``, ... without end."""
        for ours, theirs in zip(self.labelled.batches(start), self.unlabelled.batches(start), strict=False):
            values = {name: getattr(ours, name) for name in Batch.__dataclass_fields__}
            yield PairedBatch(**values, unlabelled=theirs)


def hybrid_weight(step: int, weight: float, ramp: int, end: int = 0, decay: int = 0) -> float:
    """Weight of the self-supervised loss: up from 0 over ``ramp`` steps, down to 0 over the last ones.

    Args:
        step: from 0.
        weight: between the two.
        ramp: steps over which it grows.
        end: steps in all; not needed without ``decay``.
        decay: steps over which it falls.
    """
    rise = min(1.0, (step + 1) / ramp) if ramp > 0 else 1.0
    fall = min(1.0, max(0, end - step) / decay) if decay > 0 else 1.0
    return weight * min(rise, fall)


class HybridTask(nn.Module):
    """L = L_task(labelled) + lambda(step) L_method(unlabelled), both through one encoder.

    Ghesu et al., "Self-supervised learning from 100 million medical images", 2022: the hybrid regime; the
    paper names a balancing weight, its schedule is ours.

    While the task freezes the encoder, the method rests: its steps are counted from the end of that rest.

    Args:
        task: with ``network`` and ``frozen_steps``; its backbone is the method's.
        method: a `medssl.protocols.Trainable` over ``task.backbone``.
        weight: lambda.
        ramp: steps over which the weight grows from 0.
        decay: share of the steps, at the end, over which it falls to 0; needs `plan`.

    Raises:
        ValueError: task and method have two encoders.
    """

    def __init__(
        self, task: nn.Module, method: nn.Module, weight: float, ramp: int = 0, decay: float = 0.0
    ) -> None:
        super().__init__()
        if method.backbone.encoder is not task.network.encoder:  # type: ignore[union-attr]
            raise ValueError("task and method must share one encoder")
        self.task: Any = task
        self.method: Any = method
        self.weight = weight
        self.ramp = ramp
        self.decay = decay
        self._steps = 0

    @property
    def network(self) -> nn.Module:
        """The task's network."""
        network: nn.Module = self.task.network
        return network

    @property
    def backbone(self) -> Backbone:
        """Shared by both."""
        backbone: Backbone = self.task.backbone
        return backbone

    def plan(self, steps: int) -> None:
        """Hand the number of steps on to the parts that ask for it."""
        self._steps = steps
        for part, own in ((self.task, steps), (self.method, self._own(steps))):
            if hasattr(part, "plan"):
                part.plan(own)

    def train(self, mode: bool = True) -> HybridTask:
        """Training mode; statistics of the encoder and its copies follow the task, which may freeze them."""
        super().train(mode)
        self.task.train(mode)
        for module in self.method.modules():
            if isinstance(module, MomentumCopy):  # its first copy is that of the backbone
                take_modes(module.copies[0], self.method.backbone)
        return self

    def views(self, batch: PairedBatch, generator: torch.Generator) -> tuple[Any, Any]:
        """Views of both parts.

        Raises:
            ValueError: the batch is not paired.
        """
        if batch.unlabelled is None:
            raise ValueError("the hybrid objective needs unlabelled images beside the labelled ones")
        return self.task.views(batch, generator), self.method.views(batch.unlabelled, generator)

    def forward(self, views: tuple[Any, Any], step: int) -> Losses:
        """Both losses, added; the metrics of the method carry the prefix ``ssl_``."""
        ours: Losses = self.task(views[0], step)
        own = self._own(step)
        if own < 0:  # the encoder is to stay as it is
            return ours
        theirs: Losses = self.method(views[1], own)
        decay = round(self.decay * self._steps)
        weight = hybrid_weight(own, self.weight, self.ramp, self._own(self._steps), decay)
        metrics: dict[str, Tensor] = {
            **ours.metrics,
            "supervised": ours.total.detach(),
            "self_supervised": theirs.total.detach(),
            **{f"ssl_{name}": value for name, value in theirs.metrics.items()},
        }
        return Losses(ours.total + weight * theirs.total, metrics)

    def after_backward(self, step: int) -> None:
        """What the method does between backward and the optimiser step."""
        own = self._own(step)
        if own >= 0 and hasattr(self.method, "after_backward"):
            self.method.after_backward(own)

    def _own(self, step: int) -> int:
        """Steps of the method at a step of the task; negative while it rests."""
        resting: int = self.task.frozen_steps
        return step - resting

    def predict(self, x: Tensor) -> Tensor:
        """The task's prediction."""
        found: Tensor = self.task.predict(x)
        return found

    def metrics(self, prediction: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """The task's metrics."""
        scores: Mapping[str, Tensor] = self.task.metrics(prediction, target)
        return scores
