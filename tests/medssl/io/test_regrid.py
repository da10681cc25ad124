"""Uneven and sheared slices on even, right-angled grids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.io.regrid import even_grid, is_sheared, resample_slices, unshear


@given(st.integers(2, 40), st.floats(0.1, 10), st.floats(-500, 500))
def test_even_slices_stay_where_they_are(count, spacing, start):
    offsets = start + spacing * np.arange(count)
    grid = even_grid(offsets)
    assert grid.note == ""
    assert grid.spacing == pytest.approx(spacing, rel=1e-6)
    np.testing.assert_allclose(grid.offsets, offsets, atol=1e-6)


@given(st.lists(st.floats(1, 3), min_size=2, max_size=30))
def test_both_ends_are_kept_and_the_grid_is_even(distances):
    offsets = np.cumsum([0.0, *distances])
    grid = even_grid(offsets)
    assert grid.offsets[0] == offsets[0]
    assert grid.offsets[-1] == pytest.approx(offsets[-1], abs=1e-9 + 0.02 * grid.spacing)
    np.testing.assert_allclose(np.diff(grid.offsets), grid.spacing, rtol=1e-9)


def test_a_stack_that_is_mostly_gap_is_refused():
    with pytest.raises(ValueError, match="too unevenly"):
        even_grid(np.array([0.0, 1, 101]))


def test_slices_that_exist_are_copied_and_gaps_are_means():
    array = np.array([0, 10, 40], np.int16).reshape(3, 1, 1) * np.ones((1, 2, 2), np.int16)
    result = resample_slices(array, np.array([0.0, 1, 3]), np.array([0.0, 1, 2, 3]))
    assert result.dtype == np.int16
    np.testing.assert_array_equal(result[:, 0, 0], [0, 10, 25, 40])


def test_half_a_pixel_of_drift_is_no_shear():
    assert not is_sheared(np.array([(0.0, 0.0), (0.5, 0.1)]))
    assert is_sheared(np.array([(0.0, 0.0), (-0.4, 0.0), (0.2, 0.0)]))


@pytest.mark.parametrize("axis", [0, 1])
def test_whole_shifts_move_pixels_without_changing_them(rng, axis):
    array = rng.integers(0, 99, (3, 4, 5)).astype(np.int16)
    shifts = np.zeros((3, 2))
    shifts[:, axis] = [0, 2, -1]

    result, start = unshear(array, shifts)

    assert start == tuple(np.where(np.arange(2) == axis, -1, 0))
    for index, shift in enumerate((0, 2, -1)):
        begin = [0, 0]
        begin[axis] = shift + 1
        part = result[index, begin[0] : begin[0] + 4, begin[1] : begin[1] + 5]
        np.testing.assert_array_equal(part, array[index])
    assert result.min() == array.min()


def test_a_part_of_a_pixel_is_interpolated_linearly():
    array = np.array([[[0, 8, 0, 0]], [[0, 8, 0, 0]]], np.float32)
    result, _ = unshear(array, np.array([(0.0, 0.0), (0.0, 0.25)]))
    np.testing.assert_allclose(result[1, 0, :4], [0, 6, 2, 0])
