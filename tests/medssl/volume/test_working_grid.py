"""The grid on which the encoder sees a volume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.volume import Geometry
from medssl.volume.working_grid import SPACING_RANGE, working_geometry


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_spacing_within_the_range_is_left_alone(spatial_dims):
    geometry = Geometry.from_arrays((40,) * spatial_dims, (0.5, 1.0, 1.25)[:spatial_dims])
    assert working_geometry(geometry, field_voxels=0) is geometry
    large = Geometry.from_arrays((200,) * spatial_dims, (0.5, 1.0, 1.25)[:spatial_dims])
    assert working_geometry(large) is large


@pytest.mark.parametrize(
    ("spacing", "expected"), [((5.0, 0.8, 0.8), (1.25, 0.8, 0.8)), ((1.0, 0.2, 0.25), (1.0, 0.5, 0.5))]
)
def test_axes_outside_are_clamped_one_by_one(spacing, expected):
    geometry = Geometry.from_arrays((40, 50, 60), spacing)
    working = working_geometry(geometry, field_voxels=0)
    assert working.spacing == pytest.approx(expected)
    assert working.size_mm == pytest.approx(geometry.size_mm)


def test_an_image_without_physical_size_is_never_resampled():
    geometry = Geometry.from_arrays((40, 50), has_spacing=False)
    assert working_geometry(geometry, (2.0, 3.0)) is geometry


@given(
    st.tuples(*[st.integers(8, 60)] * 3),
    st.tuples(*[st.floats(0.1, 8)] * 3),
    st.sampled_from([SPACING_RANGE, (1.0, 1.0), (2.0, 4.0)]),
)
def test_the_box_is_kept_and_the_spacing_lies_in_the_range(shape, spacing, spacing_range):
    geometry = Geometry.from_arrays(shape, spacing, (5.0, -3.0, 2.0))
    working = working_geometry(geometry, spacing_range, field_voxels=0)
    np.testing.assert_allclose(working.size_mm, geometry.size_mm, rtol=1e-9)
    for before, after, size in zip(spacing, working.spacing, working.shape, strict=True):
        if spacing_range[0] <= before <= spacing_range[1]:
            assert after == pytest.approx(before)
        else:  # whole voxels: half a voxel of rounding over the axis
            slack = 1 + 0.51 / max(size - 0.5, 0.5)
            assert spacing_range[0] / slack <= after <= spacing_range[1] * slack


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((36, 48, 36), (1.0, 1.0, 1.0), 0.5),  # 48 mm over 96 voxels
        ((60, 72, 60), (1.0, 1.0, 1.0), 0.75),
        ((20, 20, 20), (1.0, 1.0, 1.0), 0.5),  # no finer than the range
        ((8, 96, 96), (1.0, 1.0, 1.0), 1.0),  # a thin slab is a large field
    ],
)
def test_a_small_field_is_refined_to_a_useful_number_of_cells(shape, spacing, expected):
    geometry = Geometry.from_arrays(shape, spacing)
    working = working_geometry(geometry)
    assert working.spacing == pytest.approx((expected,) * 3)
    assert working.size_mm == pytest.approx(geometry.size_mm)
