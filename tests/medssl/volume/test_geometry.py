"""Laws of grids in world space, for images and volumes of any spacing and rotation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.volume import Geometry


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Grids with any shape, spacing, origin and rotation, mirrored ones included."""
    n = draw(st.sampled_from((2, 3)))
    noise = np.random.default_rng(draw(st.integers(0, 2**31))).normal(size=(n, n))
    return Geometry.from_arrays(
        draw(st.tuples(*[st.integers(1, 40)] * n)),
        draw(st.tuples(*[st.floats(0.05, 20)] * n)),
        draw(st.tuples(*[st.floats(-1000, 1000)] * n)),
        np.linalg.qr(noise)[0],
    )


def corners(geometry: Geometry) -> np.ndarray:
    """(2**n, n) world positions of the outer corners of the box that the voxels fill."""
    ends = [(-0.5, n - 0.5) for n in geometry.shape]
    return geometry.to_world(list(itertools.product(*ends)))


@given(geometries(), st.integers(0, 2**31))
def test_to_index_undoes_to_world(geometry, seed):
    index = np.random.default_rng(seed).uniform(-50, 50, (7, geometry.ndim))
    np.testing.assert_allclose(geometry.to_index(geometry.to_world(index)), index, atol=1e-6)


@given(geometries())
def test_world_is_origin_plus_direction_times_spacing_times_index(geometry):
    np.testing.assert_allclose(geometry.to_world(np.zeros(geometry.ndim)), geometry.origin)
    for axis in range(geometry.ndim):
        step = geometry.to_world(np.eye(geometry.ndim)[axis]) - np.asarray(geometry.origin)
        np.testing.assert_allclose(
            step, geometry.spacing[axis] * np.asarray(geometry.direction)[:, axis], atol=1e-9
        )


@given(geometries(), st.integers(0, 2**31))
def test_the_affine_says_the_same(geometry, seed):
    index = np.random.default_rng(seed).uniform(-9, 9, geometry.ndim)
    np.testing.assert_allclose((geometry.affine @ [*index, 1])[:-1], geometry.to_world(index), atol=1e-9)


@given(geometries(), st.data())
def test_resampled_keeps_the_box(geometry, data):
    shape = data.draw(st.tuples(*[st.integers(1, 60)] * geometry.ndim))
    fresh = geometry.resampled(shape)
    assert fresh.shape == shape
    np.testing.assert_allclose(corners(fresh), corners(geometry), atol=1e-6)
    np.testing.assert_allclose(fresh.size_mm, geometry.size_mm, rtol=1e-9)
    assert fresh.resampled(geometry.shape).matches(geometry, tolerance=1e-6)


@given(geometries(), st.data())
def test_cells_are_centred_on_their_voxels(geometry, data):
    stride = data.draw(st.tuples(*[st.integers(1, 5)] * geometry.ndim))
    cells = geometry.cells(stride)
    assert cells.shape == tuple(-(-n // s) for n, s in zip(geometry.shape, stride, strict=True))
    last = np.asarray(cells.shape) - 1
    voxels = list(
        itertools.product(*[range(int(i) * s, (int(i) + 1) * s) for i, s in zip(last, stride, strict=True)])
    )
    np.testing.assert_allclose(cells.to_world(last), geometry.to_world(voxels).mean(axis=0), atol=1e-6)


@given(geometries())
def test_cells_of_one_voxel_are_the_voxels(geometry):
    assert geometry.cells((1,) * geometry.ndim).matches(geometry, tolerance=1e-9)


@given(geometries(), st.data())
def test_a_crop_keeps_voxels_in_place(geometry, data):
    start = data.draw(st.tuples(*[st.integers(0, n - 1) for n in geometry.shape]))
    shape = tuple(n - s for n, s in zip(geometry.shape, start, strict=True))
    crop = geometry.cropped(start, shape)
    index = np.asarray(shape) - 1
    np.testing.assert_allclose(crop.to_world(index), geometry.to_world(index + start), atol=1e-6)


@given(geometries(), st.floats(0.01, 5))
def test_matches_compares_every_corner(geometry, shift):
    moved = Geometry.from_arrays(
        geometry.shape, geometry.spacing, np.asarray(geometry.origin) + shift, geometry.direction
    )
    assert geometry.matches(geometry)
    assert geometry.matches(moved, tolerance=shift * 1.001)
    assert not geometry.matches(moved, tolerance=shift * 0.999)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_matches_sees_another_shape_and_another_spacing(spatial_dims):
    geometry = Geometry.from_arrays((5,) * spatial_dims)
    assert not geometry.matches(Geometry.from_arrays((6,) * spatial_dims))
    assert not geometry.matches(Geometry.from_arrays((5,) * spatial_dims, (1.01,) * spatial_dims))
    assert not geometry.matches(Geometry.from_arrays((5,) * (5 - spatial_dims)))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_contains_counts_half_a_voxel_at_the_rim(spatial_dims):
    geometry = Geometry.from_arrays((4,) * spatial_dims)
    assert geometry.contains((-0.5,) * spatial_dims)
    assert geometry.contains((3.49,) * spatial_dims)
    assert not geometry.contains((3.5,) * spatial_dims)
    assert not geometry.contains((-0.51,) * spatial_dims)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_axis_aligned_with_permuted_and_flipped_axes(spatial_dims):
    swapped = np.roll(np.eye(spatial_dims), 1, axis=0) * -1
    assert Geometry.from_arrays((2,) * spatial_dims, direction=swapped).is_axis_aligned
    turned = np.eye(spatial_dims)
    turned[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    assert not Geometry.from_arrays((2,) * spatial_dims, direction=turned).is_axis_aligned


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (3,), "spacing": (1,), "origin": (0,)}, "2 or 3 axes"),
        ({"shape": (3, 0)}, "at least one voxel"),
        ({"spacing": (1.0, 0.0)}, "spacing must be positive"),
        ({"spacing": (1.0, float("nan"))}, "spacing must be positive"),
        ({"spacing": (1.0, -1.0)}, "spacing must be positive"),
        ({"origin": (0.0, float("inf"))}, "origin must be finite"),
        ({"origin": (0.0, 0.0, 0.0)}, "must match the 2 axes"),
        ({"direction": ((1.0, 0.3), (0.0, 1.0))}, "orthonormal"),
    ],
)
def test_what_is_no_grid_is_refused(change, message):
    good = {
        "shape": (3, 4),
        "spacing": (1.0, 1.0),
        "origin": (0.0, 0.0),
        "direction": ((1.0, 0.0), (0.0, 1.0)),
    }
    Geometry(**good)
    with pytest.raises(ValueError, match=message):
        Geometry(**(good | change))


def test_derived_grids_keep_frame_and_unknown_spacing():
    geometry = Geometry.from_arrays((8, 8), frame_of_reference_uid="1.2", has_spacing=False)
    for derived in (geometry.cells((4, 4)), geometry.resampled((3, 5)), geometry.cropped((1, 1), (2, 2))):
        assert derived.frame_of_reference_uid == "1.2"
        assert not derived.has_spacing
