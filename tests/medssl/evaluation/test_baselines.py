"""What deep features are held against."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.evaluation.baselines import filter_bank, fit_forest, intensity_and_position
from medssl.volume import Geometry, Volume


def volume(array: np.ndarray, spacing: tuple[float, ...]) -> Volume:
    return Volume(array[None], Geometry.from_arrays(array.shape, spacing), "CT")


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_position_runs_from_zero_to_one(spatial_dims: int) -> None:
    shape = (5, 7, 9)[:spatial_dims]
    features = intensity_and_position(volume(np.full(shape, 50.0), (1.0,) * spatial_dims))
    assert features.shape == (1 + spatial_dims, *shape)
    for axis in range(spatial_dims):
        line = np.moveaxis(features[1 + axis], axis, 0).reshape(shape[axis], -1)
        assert np.allclose(line, np.linspace(0, 1, shape[axis])[:, None])
    assert np.allclose(features[0], 0.5)  # 50 HU is the middle of soft tissue


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_filters_of_a_constant_are_flat(spatial_dims: int) -> None:
    shape = (9, 11, 13)[:spatial_dims]
    bank = filter_bank(volume(np.full(shape, 50.0), (1.0,) * spatial_dims))
    assert bank.shape == (13, *shape)
    smooth, gradient, laplace = bank[1::3], bank[2::3], bank[3::3]
    assert np.allclose(smooth, 0.5, atol=1e-5)
    assert np.abs(gradient).max() < 1e-5
    assert np.abs(laplace).max() < 1e-3  # float32: taps sum to 0 within 1e-4


def test_scales_are_in_millimetres() -> None:
    fine = np.zeros((41, 41))
    fine[20, 20] = 1000.0
    isotropic = filter_bank(volume(fine, (1.0, 1.0)), (2.0,))[1]
    stretched = filter_bank(volume(fine, (2.0, 1.0)), (2.0,))[1]
    assert stretched[22, 20] < isotropic[22, 20]  # 2 voxels are 4 mm there
    assert stretched[20, 22] > stretched[22, 20]


def test_forest_learns_and_repeats() -> None:
    features = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(int)
    first, second = (fit_forest(features, labels, seed=1, trees=10) for _ in range(2))
    assert (first.predict(features) == labels).mean() > 0.95
    assert np.array_equal(first.predict(features), second.predict(features))
