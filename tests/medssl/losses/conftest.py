from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from medssl.losses.graph_matching import edge_affinity


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


@pytest.fixture
def graphs(reference) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vertex and edge affinities and the edges of the two-nearest-neighbour graphs of rows 0-3 and 4-7."""
    es = torch.tensor([[0, 0, 1, 1, 2, 2, 3, 3], [2, 1, 3, 0, 0, 3, 1, 2]])
    et = torch.tensor([[0, 0, 1, 1, 2, 2, 3, 3], [2, 3, 3, 0, 0, 1, 0, 1]])
    zs, zt = reference.features[None, :4], reference.features[None, 4:8]
    return zs @ zt.mT, edge_affinity(zs, zt, es, et), es, et
