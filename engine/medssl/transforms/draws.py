"""Per-sample random numbers from an explicit generator, on the generator's device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def uniform(generator: torch.Generator, shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform in [low, high)."""
    return torch.rand(tuple(shape), generator=generator, device=generator.device) * (high - low) + low


def normal(generator: torch.Generator, shape: Sequence[int], sd: float = 1.0) -> Tensor:
    """Normal with mean zero."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device) * sd


def chance(generator: torch.Generator, shape: Sequence[int], p: float) -> Tensor:
    """Bool, True with probability ``p``."""
    return torch.rand(tuple(shape), generator=generator, device=generator.device) < p


def integers(generator: torch.Generator, shape: Sequence[int], high: int) -> Tensor:
    """int64 in [0, high)."""
    return torch.randint(high, tuple(shape), generator=generator, device=generator.device)


def seed(generator: torch.Generator) -> int:
    """A seed for a generator on another device, where whole-volume noise is drawn."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def seeded(value: int, device: torch.device) -> torch.Generator:
    """A generator on ``device`` started at ``value``."""
    return torch.Generator(device).manual_seed(value)
