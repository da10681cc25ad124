from __future__ import annotations

import pytest
import torch

from medssl.methods import METHODS
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import ResidualEncoder
from medssl.protocols import Batch


@pytest.fixture(params=[2, 3])
def spatial_dims(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def build_tiny():
    """A method by name over a tiny encoder."""

    def build(name: str, spatial_dims: int, **settings):
        torch.manual_seed(0)
        entry = METHODS[name]
        backbone = Backbone(ResidualEncoder(spatial_dims, 1, (4, 6, 8, 8), (1, 1, 1, 1)))
        return entry.build(entry.config_class().model_validate(settings), backbone, 2)

    return build


@pytest.fixture
def blobs():
    """Four images of blobs; the last two are of one volume."""

    def make(spatial_dims: int, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(4, 1, *(8,) * spatial_dims, generator=generator)
        image = torch.nn.functional.interpolate(coarse, size=(40,) * spatial_dims)
        return Batch(image, torch.ones(4, spatial_dims), torch.arange(4) % 2, torch.tensor([0, 1, 2, 2]))

    return make
