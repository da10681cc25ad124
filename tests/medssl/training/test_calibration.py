from __future__ import annotations

import pytest
import torch
from torch import nn

from medssl.nets.dense import DenseFeatures
from medssl.nets.encoders import build_encoder
from medssl.protocols import Batch
from medssl.training.calibration import calibrate_norms, calibrate_projection


def batch(image: torch.Tensor) -> Batch:
    zeros = torch.zeros(len(image), dtype=torch.int64)
    return Batch(image, torch.ones(len(image), image.ndim - 2), zeros, zeros)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_running_statistics_become_plain_means(spatial_dims: int) -> None:
    norm = (nn.BatchNorm2d, nn.BatchNorm3d)[spatial_dims - 2](1)
    norm.running_mean.fill_(77.0)
    shape = (2, 1, *(5,) * spatial_dims)
    images = [
        torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + seed for seed in range(4)
    ]
    calibrate_norms(norm, lambda item: norm(item.image), [batch(image) for image in images])
    torch.testing.assert_close(
        norm.running_mean, torch.stack([image.mean() for image in images]).mean()[None]
    )
    torch.testing.assert_close(norm.running_var, torch.stack([image.var() for image in images]).mean()[None])
    assert not norm.training
    assert norm.momentum == 0.1


def test_norms_that_are_kept_in_evaluation_mode_are_left_alone() -> None:
    class Half(nn.Sequential):
        def train(self, mode: bool = True) -> Half:
            super().train(mode)
            self[0].eval()
            return self

    norms = Half(nn.BatchNorm2d(1), nn.BatchNorm2d(1))
    calibrate_norms(norms, lambda item: norms(item.image), [batch(torch.rand(2, 1, 4, 4) + 5)])
    assert float(norms[0].running_mean) == 0
    assert float(norms[1].running_mean) > 4
    passes: list[Batch] = []
    frozen = nn.BatchNorm2d(1).requires_grad_(False)
    frozen.train = lambda mode=True: frozen  # type: ignore[method-assign]
    frozen.training = False
    calibrate_norms(frozen, passes.append, [batch(torch.rand(2, 1, 4, 4))])
    assert not passes, "nothing to measure: no pass is paid for"


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_projection_is_fitted_on_foreground_only(spatial_dims: int) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("tiny", spatial_dims).eval()
    images = torch.rand(4, 1, *(48,) * spatial_dims)
    half = images.clone()
    half[..., :24] = 0  # air; cells there look alike and must not pull the mean
    first, second = DenseFeatures(encoder.levels), DenseFeatures(encoder.levels)
    calibrate_projection(first, encoder, [batch(half)], cells=128)
    assert first.weight.shape == (64, first.in_channels)
    with torch.no_grad():
        cells = first.concatenated(encoder(half))[..., 6:].flatten(2).mean((0, 2))
        air = second.concatenated(encoder(half))[..., :6].flatten(2).mean((0, 2))
    assert (first.mean - cells).norm() < 0.5 * (first.mean - air).norm()


def test_the_choice_of_cells_is_seeded() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("tiny", 2).eval()
    image = batch(torch.rand(4, 1, 64, 64))
    weights = []
    for seed in (1, 1, 2):
        dense = DenseFeatures(encoder.levels)
        calibrate_projection(dense, encoder, [image], cells=150, seed=seed)
        weights.append(dense.weight.clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
