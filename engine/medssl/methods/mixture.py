"""A method on real scans and one on generated volumes, in alternating batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from medssl.protocols import Batch, Losses, Trainable


@dataclass(frozen=True)
class GeneratedViews:
    """Views that belong to the synthesis."""

    views: Any


class Mixture(nn.Module):
    """Any method, with randomised synthesis in a share of the batches; both train one backbone.

    Args:
        method: the method on real scans.
        synthesis: over the same backbone.
        share: of the batches that go to the synthesis, spread evenly; between 0 and 1.

    Raises:
        ValueError: the two have different backbones, or the share is not between 0 and 1.
    """

    drawn: Tensor

    def __init__(self, method: nn.Module, synthesis: nn.Module, share: float) -> None:
        super().__init__()
        if synthesis.backbone is not method.backbone:
            raise ValueError("method and synthesis must train the same backbone")
        if not 0 < share < 1:
            raise ValueError(f"share must lie between 0 and 1, got {share}")
        self.backbone = cast(nn.Module, synthesis.backbone)
        self.method = method
        self.synthesis = synthesis
        self.share = share
        # How many batches were drawn: saved with the run, so that a resumed one goes on in turn.
        self.register_buffer("drawn", torch.zeros((), dtype=torch.long))

    def views(self, batch: Batch, generator: torch.Generator) -> Any:
        """Views of whoever's turn it is."""
        before = int(self.drawn)
        self.drawn += 1
        if math.floor((before + 1) * self.share) > math.floor(before * self.share):
            return GeneratedViews(cast(Trainable, self.synthesis).views(batch, generator))
        return cast(Trainable, self.method).views(batch, generator)

    def forward(self, views: Any, step: int) -> Losses:
        """The loss of the method, or of the synthesis under the name of its own."""
        if not isinstance(views, GeneratedViews):
            return cast(Losses, self.method(views, step))
        losses: Losses = self.synthesis(views.views, step)
        metrics = {f"synthesis/{name}": value for name, value in losses.metrics.items()}
        return Losses(losses.total, {**metrics, "synthesis/loss": losses.total.detach()})

    def plan(self, steps: int) -> None:
        """Tell the method how many steps there will be."""
        hook = getattr(self.method, "plan", None)
        if hook is not None:
            hook(steps)

    def after_backward(self, step: int) -> None:
        """What the method does there."""
        hook = getattr(self.method, "after_backward", None)
        if hook is not None:
            hook(step)
