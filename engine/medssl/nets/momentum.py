"""Copies of modules that follow them slowly: the key encoder of MoCo, the target network of BYOL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn


class MomentumCopy(nn.Module):
    """Copies of some modules; their weights are a moving average of the originals', without gradients.

    Buffers (running statistics) are not averaged: the copies keep their own. Part of the state dict, so a
    resumed run goes on with the copy it had.

    Args:
        originals: modules to copy, in the order of ``copies``.
    """

    def __init__(self, *originals: nn.Module) -> None:
        super().__init__()
        self.copies = nn.ModuleList(deepcopy(module) for module in originals).requires_grad_(False)
        self._followed = 0  # at step 0 copy and original are equal

    @torch.no_grad()
    def follow(self, originals: Sequence[nn.Module], step: int, momentum: float) -> None:
        """copy <- momentum * copy + (1 - momentum) * original, once per step.

        Called again with the same step (gradient accumulation), it does nothing.

        Args:
            originals: those of the constructor.
            step: global step.
            momentum: share that stays.
        """
        if step == self._followed:
            return
        self._followed = step
        for copy, original in zip(self.copies, originals, strict=True):
            for mine, theirs in zip(copy.parameters(), original.parameters(), strict=True):
                mine.lerp_(theirs, 1 - momentum)


def take_modes(copy: nn.Module, original: nn.Module) -> None:
    """Put every part of a copy into the mode, training or not, of the same part of the original."""
    for mine, theirs in zip(copy.modules(), original.modules(), strict=True):
        mine.training = theirs.training


def momentum_at(step: int, steps: int | None, start: float, end: float) -> float:
    """Momentum at a step: end - (end - start) (1 + cos(pi step / steps)) / 2.

    Args:
        step: global step.
        steps: of the whole run; None (not known) stays at ``start``.
        start: first value.
        end: value from the last step on.

    Reference: Grill et al., "Bootstrap your own latent", NeurIPS 2020, section 3.2.
    """
    if steps is None:
        return start
    return end - (end - start) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2
