from __future__ import annotations

import numpy as np
import pytest

from medssl.probing.emphasis import INTENSITY_WEIGHT, intensity_emphasis, strokes
from medssl.probing.linear import LinearProbe
from medssl.probing.logistic import fit_logistic
from medssl.probing.samples import Scan
from medssl.volume import Geometry, Volume


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_voxels_that_touch_are_one_stroke(spatial_dims: int) -> None:
    labels = np.zeros((9, 12, 12)[-spatial_dims:], np.uint8)
    labels[..., 2, 2:6] = 1  # in 3D through all slices
    labels[..., 3, 6] = 2  # touches its corner
    labels[..., 8, 8] = 1
    found = np.full(labels.shape, -1)
    found[np.nonzero(labels)] = strokes(np.nonzero(labels))
    assert len(np.unique(found[labels > 0])) == 2
    assert len(np.unique(found[..., 2:4, 2:7][labels[..., 2:4, 2:7] > 0])) == 1
    assert strokes(tuple(np.zeros((spatial_dims, 0), int))).shape == (0,)


def drawn(rng: np.random.Generator, told_by: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 66) inputs, classes and strokes of 5 voxels each; features vary from stroke to stroke."""
    target = np.repeat([0, 1, 2], 60)
    of_stroke = np.arange(180) // 5
    features = rng.normal(size=(36, 64))[of_stroke] + 0.1 * rng.normal(size=(180, 64))
    brightness = rng.normal(size=(36, 1))[of_stroke] + 0.1 * rng.normal(size=(180, 2))
    if told_by == "brightness":
        brightness = target[:, None] + 0.15 * rng.normal(size=(180, 2))
    else:
        features[:, :8] += 2 * np.eye(3)[target] @ rng.normal(size=(3, 8))
    return np.concatenate([features, brightness], axis=1), target, of_stroke


@pytest.mark.parametrize(("told_by", "weight"), [("brightness", INTENSITY_WEIGHT), ("features", 1.0)])
def test_brightness_counts_more_where_it_tells_the_strokes_apart(told_by: str, weight: float) -> None:
    for seed in range(5):
        samples, target, of_stroke = drawn(np.random.default_rng(seed), told_by)
        found = intensity_emphasis(samples, target, 3, 0.1, of_stroke)
        np.testing.assert_array_equal(found, [1.0] * 64 + [weight] * 2)


def test_a_class_of_one_stroke_leaves_the_choice_alone() -> None:
    samples, target, of_stroke = drawn(np.random.default_rng(0), "brightness")
    of_stroke[target == 1] = 99
    np.testing.assert_array_equal(intensity_emphasis(samples, target, 3, 0.1, of_stroke), 1.0)


def test_emphasis_weakens_the_penalty_and_folds_back(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(90, 4)) * [1, 5, 0.2, 3], rng.integers(0, 3, 90)
    factors = np.array([1.0, 1.0, 4.0, 4.0])
    heavy = fit_logistic(x, y, 3, 0.05, emphasis=factors)
    scaled = fit_logistic((x - x.mean(0)) / x.std(0) * factors, y, 3, 0.05, emphasis=factors)
    np.testing.assert_allclose(
        heavy.probabilities(x), scaled.probabilities((x - x.mean(0)) / x.std(0) * factors), atol=1e-3
    )
    plain = fit_logistic(x, y, 3, 0.05)
    gain = np.abs(heavy.folded()[0] * x.std(0)).sum(0) / np.abs(plain.folded()[0] * x.std(0)).sum(0)
    assert gain[2:].min() > 1.5 > gain[:2].max()


def test_a_probe_separates_tissues_of_which_features_know_nothing(rng: np.random.Generator) -> None:
    shape = (24, 32, 32)
    geometry = Geometry.from_arrays(shape)
    truth = np.where(np.indices(shape)[2] // 2 % 2 == 0, 1, 2)  # sheets of two voxels, finer than a cell
    array = (200 * truth + rng.normal(0, 20, shape)).astype(np.float32)
    cells = geometry.cells((4, 4, 4))
    features = rng.normal(size=(64, *cells.shape)).astype(np.float16)
    scan = Scan(Volume(array[None], geometry, "MR"), Volume(features, cells))
    labels = np.zeros(shape, np.uint8)
    for z, y, x in rng.integers(2, 22, (16, 3)):
        labels[z, y : y + 3, x] = truth[z, y : y + 3, x]
    probe = LinearProbe().fit([(scan, labels)])
    assert (probe.predict(scan).labels == truth).mean() > 0.95
    folded, _ = probe.folded()
    restored = LinearProbe.from_arrays(probe.to_arrays())
    np.testing.assert_array_equal(restored.folded()[0], folded)
