from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from medssl.protocols import Batch, Losses


class Toy(nn.Module):
    """A trainable with everything that makes resuming hard: batch norm, dropout, random views, a queue."""

    def __init__(self, spatial_dims: int = 3) -> None:
        super().__init__()
        conv = nn.Conv3d if spatial_dims == 3 else nn.Conv2d
        norm = nn.BatchNorm3d if spatial_dims == 3 else nn.BatchNorm2d
        self.backbone = nn.Module()
        self.backbone.encoder = nn.Sequential(conv(1, 4, 3, padding=1), norm(4), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(4, 1)
        self.prototypes = nn.Linear(4, 3, bias=False)
        self.register_buffer("queue", torch.zeros(4))
        self.hook_steps: list[int] = []

    def views(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        return batch.image + 0.1 * torch.randn(
            batch.image.shape, generator=generator, device=batch.image.device
        )

    def forward(self, views: torch.Tensor, step: int) -> Losses:
        features = self.backbone.encoder(views).flatten(2).mean(2)
        self.queue = 0.9 * self.queue + 0.1 * features.detach().mean(0)
        scores = self.prototypes(features - self.queue)
        loss = (self.head(features) - views.flatten(1).mean(1, keepdim=True)).square().mean()
        total = loss + 0.01 * scores.square().mean()
        return Losses(total, {"error": loss.detach()})

    def after_backward(self, step: int) -> None:
        self.hook_steps.append(step)


class ToyData:
    """Batch n is a function of n."""

    def __init__(self, spatial_dims: int = 3, batch_size: int = 4) -> None:
        self.shape = (batch_size, 1, *(6,) * spatial_dims)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        number = start
        while True:
            generator = torch.Generator().manual_seed(number)
            image = torch.rand(self.shape, generator=generator)
            zeros = torch.zeros(self.shape[0], dtype=torch.int64)
            yield Batch(image, torch.ones(self.shape[0], len(self.shape) - 2), zeros, zeros)
            number += 1


@pytest.fixture
def toy():
    def make(spatial_dims: int = 3, seed: int = 0) -> Toy:
        torch.manual_seed(seed)
        return Toy(spatial_dims)

    return make


@pytest.fixture
def toy_data():
    return ToyData


@pytest.fixture(scope="session")
def fabric():
    from medssl.training.fabric import build_fabric

    return build_fabric("cpu")
