from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Reference:
    """Hand-made features whose losses were computed once by an independent NumPy script."""

    features: Tensor  # (18, 3), unit rows; 0-5 view 0, 6-11 view 1, 12-17 a local crop
    prototypes: Tensor  # (4, 3), unit rows

    @property
    def scores(self) -> list[Tensor]:
        return list((self.features @ self.prototypes.T).split(6))


@pytest.fixture
def reference() -> Reference:
    def grid(rows: int) -> Tensor:
        return torch.arange(1, rows + 1, dtype=torch.float64)[:, None] * torch.arange(
            1, 4, dtype=torch.float64
        )

    features = torch.nn.functional.normalize(torch.sin(1.3 * grid(18)), dim=1)
    prototypes = torch.nn.functional.normalize(torch.cos(0.9 * grid(4)), dim=1)
    return Reference(features, prototypes)
