"""Bringing a frozen encoder back into training, gently."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


class Thaw:
    """Learning rate of an encoder after its frozen phase: a tenth at first, then doubling up to its own.

    Wolf et al., "Self-supervised pre-training with contrastive and masked autoencoder methods for dealing
    with small datasets", 2023: frozen for 10 of 70 epochs, then a tenth of the rate, doubled every epoch.

    Args:
        optimizer: whose groups have ``lr_scale``; a group holds parameters of the encoder alone or none.
        parameters: of the encoder.
        begin: steps during which it was frozen.
        every: steps in which the rate doubles.
        first: share of the rate after ``begin`` steps.

    Raises:
        ValueError: a group mixes parameters of the encoder with others.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Iterable[Tensor],
        *,
        begin: int,
        every: float,
        first: float = 0.1,
    ) -> None:
        own = {id(parameter) for parameter in parameters}
        self._optimizer = optimizer
        self._scales: dict[int, float] = {}
        for number, group in enumerate(optimizer.param_groups):
            inside = [id(parameter) in own for parameter in group["params"]]
            if any(inside) and not all(inside):
                raise ValueError("a group of the optimiser mixes parameters of the encoder with others")
            if any(inside):
                self._scales[number] = group.get("lr_scale", 1.0)
        self._begin = begin
        self._every = every
        self._first = first
        self(0)

    def share(self, step: int) -> float:
        """Share of its own rate that the encoder learns with after ``step`` finished steps."""
        since = max(0, step - self._begin)
        return min(1.0, self._first * 2 ** min(since / self._every, 60))

    def __call__(self, step: int) -> None:
        """Set the scale of the encoder's groups for the step that comes."""
        for number, scale in self._scales.items():
            # looked up each time: loading a checkpoint puts other groups in place of the first ones
            self._optimizer.param_groups[number]["lr_scale"] = scale * self.share(step)


def thawing(task: nn.Module, optimizer: Optimizer, every: float) -> Thaw | None:
    """The thaw of a task's encoder; None where it is never frozen.

    Args:
        task: a `medssl.tasks.encoder_task.EncoderTask`, or the hybrid one around it.
        optimizer: with the encoder in groups of its own.
        every: steps in which the rate doubles, at least 1.
    """
    inner: Any = getattr(task, "task", task)
    if not inner.frozen_steps:
        return None
    encoder = inner.network.encoder.parameters()
    return Thaw(optimizer, encoder, begin=inner.frozen_steps, every=max(1.0, every))
