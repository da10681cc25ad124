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
    assert working_geometry(geometry) is geometry


@pytest.mark.parametrize(
    ("spacing", "expected"), [((5.0, 0.8, 0.8), (1.25, 0.8, 0.8)), ((1.0, 0.2, 0.25), (1.0, 0.5, 0.5))]
)
def test_axes_outside_are_clamped_one_by_one(spacing, expected):
    geometry = Geometry.from_arrays((40, 50, 60), spacing)
    working = working_geometry(geometry)
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
    working = working_geometry(geometry, spacing_range)
    np.testing.assert_allclose(working.size_mm, geometry.size_mm, rtol=1e-9)
    for before, after, size in zip(spacing, working.spacing, working.shape, strict=True):
        if spacing_range[0] <= before <= spacing_range[1]:
            assert after == pytest.approx(before)
        else:  # whole voxels: half a voxel of rounding over the axis
            slack = 1 + 0.51 / max(size - 0.5, 0.5)
            assert spacing_range[0] / slack <= after <= spacing_range[1] * slack
