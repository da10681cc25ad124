"""Boxes of voxels."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.volume import Geometry
from medssl.volume.regions import Box, box_of


@pytest.mark.parametrize(("start", "stop"), [((0, 0), (1, 0)), ((0, 0), (1, 1, 1)), ((0,), (1,))])
def test_empty_and_odd_boxes_are_refused(start, stop):
    with pytest.raises(ValueError, match="a box"):
        Box(start, stop)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_box_around_a_mask(spatial_dims):
    mask = np.zeros((9, 8, 7)[:spatial_dims], dtype=bool)
    assert box_of(mask) is None
    mask[(2,) * spatial_dims] = mask[(5,) * spatial_dims] = True
    assert box_of(mask, "a") == Box((2,) * spatial_dims, (6,) * spatial_dims, "a")


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_corners_are_the_outer_edges(spatial_dims):
    geometry = Geometry.from_arrays((4, 5, 6)[:spatial_dims], (2.0,) * spatial_dims)
    corners = Box((0,) * spatial_dims, (1,) * spatial_dims).corners(geometry)
    np.testing.assert_allclose(corners, [[-1] * spatial_dims, [1] * spatial_dims])
