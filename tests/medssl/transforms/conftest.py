from __future__ import annotations

import pytest
import torch
from torch import Tensor


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=[(9, 14), (7, 12, 9)], ids=["plane", "space"])
def image(request, generator) -> Tensor:
    """(4, 2, *S) in [0, 1], odd and even sizes, 2D and 3D."""
    return torch.rand(4, 2, *request.param, generator=generator)
