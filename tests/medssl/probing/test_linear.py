from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medssl.errors import InputError
from medssl.probing.linear import LinearProbe
from medssl.probing.logistic import fit_logistic, logistic_loss
from medssl.probing.samples import Scan
from medssl.volume import Geometry, Volume
from medssl.volume.normalize import Normalizer
from medssl.volume.resample import interpolate, interpolation_matrices

SHAPES = {2: (45, 38), 3: (21, 30, 26)}


def scan(spatial_dims: int, rng: np.random.Generator, channels: int = 6) -> Scan:
    shape = SHAPES[spatial_dims]
    geometry = Geometry.from_arrays(shape, (3.0, 0.8, 1.1)[-spatial_dims:], (4, 5, 6)[:spatial_dims])
    grid = geometry.resampled(tuple(n + 5 for n in shape)).cells((4,) * spatial_dims)
    features = rng.normal(size=(channels, *grid.shape)).astype(np.float16)
    array = rng.integers(-1000, 1500, size=(1, *shape)).astype(np.int16)
    return Scan(Volume(array, geometry, "CT"), Volume(features, grid))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_samples_equal_the_interpolated_volume(spatial_dims: int, rng: np.random.Generator) -> None:
    source = scan(spatial_dims, rng)
    index = tuple(rng.integers(0, n, 50) for n in source.geometry.shape)
    found = source.sample(*index)
    matrices = interpolation_matrices(source.features.geometry, source.geometry)
    dense = interpolate(source.features.array, matrices)
    np.testing.assert_allclose(found[:, :6], dense[(slice(None), *index)].T, atol=1e-4)
    intensity = Normalizer.fit(source._array, "CT")(source._array)
    np.testing.assert_allclose(found[:, 6], intensity[index], atol=1e-6)
    smooth = ndimage.gaussian_filter(intensity, 1.0, truncate=3.0)
    np.testing.assert_allclose(found[:, 7], smooth[index], atol=1e-5)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_slabs_equal_the_whole(spatial_dims: int, rng: np.random.Generator) -> None:
    source = scan(spatial_dims, rng)
    whole = source.intensities(slice(0, source.geometry.shape[0]))
    np.testing.assert_allclose(source.intensities(slice(6, 9)), whole[:, 6:9], atol=1e-6)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_volume_prediction_equals_prediction_of_samples(spatial_dims: int, rng: np.random.Generator) -> None:
    source = scan(spatial_dims, rng)
    labels = np.zeros(source.geometry.shape, np.uint8)
    labels.flat[rng.choice(labels.size, 60, replace=False)] = np.repeat([2, 3, 7], 20)
    probe = LinearProbe().fit([(source, labels)])
    assert probe.classes == (2, 3, 7)
    found = probe.predict(source, with_uncertainty=True, with_probabilities=True)
    every = probe.predict_samples(source.sample(*(i.ravel() for i in np.indices(labels.shape))))
    assert found.probabilities is not None
    assert found.uncertainty is not None
    np.testing.assert_allclose(found.probabilities.reshape(3, -1).T, every, atol=2e-3)
    agree = found.labels.ravel() == np.asarray(probe.classes)[every.argmax(1)]
    assert agree.mean() > 0.999
    ordered = np.sort(every, axis=1)
    np.testing.assert_allclose(found.uncertainty.ravel(), 1 - (ordered[:, -1] - ordered[:, -2]), atol=2e-3)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_separable_classes_are_found_whole(spatial_dims: int, rng: np.random.Generator) -> None:
    """Three regions that differ in their features: 5 voxels each give all others, in another volume too."""
    geometry = Geometry.from_arrays((48,) * spatial_dims)
    cells = geometry.cells((4,) * spatial_dims)
    region = np.indices(cells.shape)[0] // 4  # 0, 1, 2 along the first axis
    truth = region.repeat(4, 0)
    for axis in range(1, spatial_dims):
        truth = truth.repeat(4, axis)
    codes = rng.normal(size=(3, 8)) * 3

    def volume() -> Scan:
        features = codes[region] + 0.1 * rng.normal(size=(*cells.shape, 8))
        array = np.ones((1, *geometry.shape), np.float32)
        return Scan(
            Volume(array, geometry, "MR"), Volume(np.moveaxis(features, -1, 0).astype(np.float16), cells)
        )

    labels = np.zeros(geometry.shape, np.uint8)
    for number, row in enumerate((8, 24, 40), start=1):
        labels[(row, *(slice(10, 15 if axis == 1 else 11) for axis in range(1, spatial_dims)))] = number
    probe = LinearProbe().fit([(volume(), labels)])
    away = (truth != np.roll(truth, 3, 0)) | (truth != np.roll(truth, -3, 0))  # edges are interpolated
    for source in (volume(), volume()):
        assert (probe.predict(source).labels == truth + 1)[~away].all()


def test_the_minimum_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x = rng.normal(size=(300, 12)) * rng.uniform(0.1, 10, 12) + 3
    y = np.argmax(x[:, :4] / x[:, :4].std(0) + rng.normal(size=(300, 4)), axis=1)
    y[:200] = 1  # classes out of balance
    model = fit_logistic(x, y, 4, 0.1)
    reference = linear_model.LogisticRegression(C=0.1, class_weight="balanced", max_iter=5000, tol=1e-8)
    reference.fit((x - x.mean(0)) / x.std(0), y)
    expected = reference.predict_proba((x - x.mean(0)) / x.std(0))
    np.testing.assert_allclose(model.probabilities(x), expected, atol=5e-3)
    np.testing.assert_allclose(model.weight, reference.coef_, atol=2e-2)


def test_gradient_is_that_of_finite_differences(rng: np.random.Generator) -> None:
    x = rng.normal(size=(40, 5)).astype(np.float32)
    onehot = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 40)]
    weights, parameters = rng.uniform(0.5, 2, 40), rng.normal(size=(3, 6))
    _, gradient = logistic_loss(parameters, x, onehot, weights, 0.5)
    for position in np.ndindex(3, 6):
        step = np.zeros((3, 6))
        step[position] = 1e-2
        up = logistic_loss(parameters + step, x, onehot, weights, 0.5)[0]
        down = logistic_loss(parameters - step, x, onehot, weights, 0.5)[0]
        assert gradient[position] == pytest.approx((up - down) / 2e-2, abs=2e-4)


def test_a_refit_starts_where_it_was_and_ends_at_the_same_place(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(200, 6)), rng.integers(0, 3, 200)
    first = fit_logistic(x, y, 3, 0.1)
    again = fit_logistic(x[:180], y[:180], 3, 0.1, start=first)
    cold = fit_logistic(x[:180], y[:180], 3, 0.1)
    np.testing.assert_allclose(again.probabilities(x), cold.probabilities(x), atol=5e-3)


def test_a_constant_input_does_no_harm(rng: np.random.Generator) -> None:
    x = rng.normal(size=(60, 3))
    x[:, 1] = 7
    model = fit_logistic(x, (x[:, 0] > 0).astype(int), 2, 1.0)
    assert np.isfinite(model.folded()[0]).all()
    assert (model.probabilities(x).argmax(1) == (x[:, 0] > 0)).mean() > 0.95


def test_arrays_restore_the_probe(rng: np.random.Generator) -> None:
    probe = LinearProbe(0.5).fit_samples(rng.normal(size=(50, 4)).astype(np.float32), np.repeat([1, 5], 25))
    restored = LinearProbe.from_arrays(probe.to_arrays())
    x = rng.normal(size=(9, 4)).astype(np.float32)
    assert (restored.classes, restored.inverse_strength) == ((1, 5), 0.5)
    np.testing.assert_array_equal(restored.predict_samples(x), probe.predict_samples(x))


def test_what_cannot_be_fitted_is_said(rng: np.random.Generator) -> None:
    source = scan(3, rng)
    labels = np.zeros(source.geometry.shape, np.uint8)
    with pytest.raises(InputError, match="nothing is labelled"):
        LinearProbe().fit([(source, labels)])
    labels[3, 3] = 4
    with pytest.raises(InputError, match="only class 4 is labelled"):
        LinearProbe().fit([(source, labels)])
    with pytest.raises(InputError, match="not seen any label"):
        LinearProbe().predict(source)
    labels[9, 3] = 2
    probe = LinearProbe().fit([(source, labels)])
    with pytest.raises(InputError, match="fitted on 8 inputs and this volume has 11"):
        probe.predict(scan(3, rng, channels=9))
