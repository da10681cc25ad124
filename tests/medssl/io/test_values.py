"""Voxel types, repairs and the guess at the modality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medssl.errors import InputError
from medssl.io.values import compact, finite, grey, guess_modality


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([True, False]), np.uint8),
        (np.array([0, 255], np.uint8), np.uint8),
        (np.array([-5, 100], np.int8), np.int16),
        (np.array([0, 32767], np.uint16), np.int16),
        (np.array([0, 40000], np.uint16), np.uint16),
        (np.array([-1024, 3071], np.int64), np.int16),
        (np.array([-1, 40000], np.int64), np.int32),
        (np.array([0, 2**40], np.int64), np.float32),
        (np.array([-1024.0, 3071.0]), np.int16),
        (np.array([0.5, 1.0]), np.float32),
        (np.array([0.25, 1.0], np.float16), np.float32),
    ],
)
def test_the_smallest_type_that_keeps_the_values(values, dtype):
    result = compact(values)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, values)


def test_complex_numbers_are_refused():
    with pytest.raises(InputError, match="complex"):
        compact(np.array([1j]))


@given(hnp.arrays(st.sampled_from([np.int32, np.int64, np.uint16, np.uint32]), hnp.array_shapes(max_side=4)))
def test_integers_of_32_bits_are_never_changed(values):
    inside = values[(values >= -(2**31)) & (values < 2**31)]
    if inside.size:
        np.testing.assert_array_equal(compact(inside), inside)


@given(hnp.arrays(np.float32, hnp.array_shapes(max_side=5)))
def test_repair_leaves_finite_voxels_alone(values):
    good = np.isfinite(values)
    if not good.any():
        with pytest.raises(InputError):
            finite(values)
        return
    repaired, note = finite(values)
    np.testing.assert_array_equal(repaired[good], values[good])
    assert (repaired[~good] == values[good].min()).all()
    assert bool(note) == (not good.all())


def test_grey_is_the_luminance():
    np.testing.assert_allclose(grey(np.eye(3)[None] * 100), [[29.9, 58.7, 11.4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "name", "modality"),
    [
        (-1024, 1500, "image.nii.gz", "CT"),
        (-300, 300, "spleen.nii.gz", "CT"),
        (0, 1200, "image.nii.gz", "MR"),
        (0, 1200, "sub-01_T1w.nii.gz", "MR"),
        (0, 900, "pet.nii.gz", "PT"),
        (-1024, 1500, "t2.nii.gz", "MR"),
        (-3, 900, "correct.nii.gz", "MR"),
    ],
)
def test_modality_from_values_and_name(rng, low, high, name, modality):
    array = rng.integers(low, high, (1, 20, 20, 20)).astype(np.int16)
    found, note = guess_modality(array, name)
    assert found == modality
    assert "not stated" in note


def test_a_label_map_has_no_modality(rng):
    assert guess_modality(rng.integers(0, 8, (1, 20, 20)).astype(np.uint8), "label.nii.gz") == ("", "")


def test_standardised_floats_are_no_hounsfield_units(rng):
    assert guess_modality(rng.normal(size=(1, 20, 20, 20)).astype(np.float32), "a.nii")[0] == "MR"


def test_values_beyond_float32_are_no_voxels():
    repaired, note = finite(np.array([-1.797e308, 3.0, 7.0, np.nan]))
    np.testing.assert_array_equal(repaired, [3, 3, 7, 3])
    assert note == "2 NaN, infinite or too large voxels were set to the lowest value, 3"
