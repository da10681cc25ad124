"""The map of intensities onto [0, 1]."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.volume.normalize import HOUNSFIELD_KNOTS, Normalizer


def test_hounsfield_knots_are_met_for_every_type():
    x, y = zip(*HOUNSFIELD_KNOTS, strict=True)
    normalizer = Normalizer.fit(np.zeros((1, 2, 2)), "CT")
    for dtype in (np.int16, np.int32, np.float32):
        result = normalizer(np.array(x, dtype))
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, y, atol=1e-6)


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=50))
def test_the_table_of_integers_agrees_with_floats(values):
    normalizer = Normalizer(HOUNSFIELD_KNOTS)
    whole = np.array(values, np.int16)
    np.testing.assert_allclose(normalizer(whole), normalizer(whole.astype(np.float64)), atol=1e-6)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=100))
def test_the_map_is_monotone_and_stays_in_range(values):
    array = np.sort(np.array(values, np.float32))
    for modality in ("CT", "MR"):
        result = Normalizer.fit(array[None], modality)(array)
        assert (np.diff(result) >= 0).all()
        assert result.min() >= 0
        assert result.max() <= 1


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e6])
@pytest.mark.parametrize("shift", [0.0, -50.0])
def test_other_modalities_do_not_depend_on_the_scanner_scale(rng, scale, shift):
    array = np.where(rng.random((1, 20, 20, 20)) < 0.5, 0, rng.normal(100, 20, (1, 20, 20, 20)))
    reference = Normalizer.fit(array, "MR")(array)
    other = array * scale + shift * scale
    np.testing.assert_allclose(Normalizer.fit(other, "MR")(other), reference, atol=2e-3)


def test_air_does_not_darken_the_body(rng):
    """Twice as much air around the same body leaves the body's values as they are."""
    body = rng.normal(500, 80, 8000)
    little = np.concatenate([np.zeros(4000), body])[None, None]
    much = np.concatenate([np.zeros(60000), body])[None, None]
    few, many = (Normalizer.fit(array, "MR")(body) for array in (little, much))
    np.testing.assert_allclose(few, many, atol=0.02)
    assert 0.5 < np.median(few) < 0.9


def test_a_tile_gets_the_values_of_the_whole(rng):
    array = rng.normal(300, 90, (1, 12, 14, 16)).astype(np.float32)
    normalizer = Normalizer.fit(array, "MR")
    np.testing.assert_array_equal(normalizer(array)[:, 3:7], normalizer(array[:, 3:7]))


@pytest.mark.parametrize("value", [0, 7, -3, 2.0**63])
def test_a_constant_image_is_no_division_by_zero(value):
    array = np.full((1, 4, 4), value, np.float32)
    assert np.isfinite(Normalizer.fit(array, "MR")(array)).all()


def test_nan_becomes_zero_and_does_not_move_the_rest(rng):
    array = rng.normal(300, 90, (1, 20, 20)).astype(np.float32)
    holed = array.copy()
    holed[0, 3, 4] = np.nan
    result = Normalizer.fit(holed, "MR")(holed)
    assert result[0, 3, 4] == 0
    assert Normalizer.fit(np.full((1, 2, 2), np.nan), "MR")(array).shape == array.shape


def test_knots_survive_json(rng):
    for modality in ("CT", "MR"):
        normalizer = Normalizer.fit(rng.normal(300, 90, (1, 20, 20)), modality)
        assert Normalizer.from_json(json.loads(json.dumps(normalizer.to_json()))) == normalizer
