"""Random block masks on the coarsest grid of an encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def draw_visible(batch: int, grid: Sequence[int], ratio: float, generator: torch.Generator) -> Tensor:
    """Which cells of the grid stay visible: exactly round(cells * (1 - ratio)) per sample, uniformly chosen.

    The exact number keeps the statistics of sparse normalisation comparable between samples.

    Args:
        batch: B.
        grid: (n,) cells per axis.
        ratio: masked share, in [0, 1).
        generator: source of all randomness.

    Returns:
        (B, 1, *grid) bool on the generator's device, True = visible.

    Raises:
        ValueError: if no cell would stay visible.

    Reference: Tian et al. (SparK), ICLR 2023, section 3.1.
    """
    cells = math.prod(grid)
    kept = round(cells * (1 - ratio))
    if not 0 < kept <= cells:
        raise ValueError(
            f"mask ratio {ratio} leaves {kept} of {cells} cells visible; it must leave at least one"
        )
    order = torch.rand((batch, cells), generator=generator, device=generator.device).argsort(dim=1)
    visible = torch.zeros(batch, cells, dtype=torch.bool, device=order.device)
    return visible.scatter_(1, order[:, :kept], value=True).reshape(batch, 1, *grid)
