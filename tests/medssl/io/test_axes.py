"""The border between array order and (x, y, z) LPS."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medssl.io.axes import (
    from_lps,
    lps_direction,
    lps_index,
    lps_origin,
    lps_point,
    lps_spacing,
    orientation_code,
)
from medssl.volume import Geometry


def test_points_agree_with_simpleitk(oblique):
    geometry = oblique().geometry
    image = sitk.Image([int(n) for n in geometry.shape[::-1]], sitk.sitkUInt8)
    image.SetSpacing(lps_spacing(geometry))
    image.SetOrigin(lps_origin(geometry))
    image.SetDirection(lps_direction(geometry).ravel().tolist())

    for index in [(0, 0, 0), (4, 1, 9), (2, 6, 0)]:
        np.testing.assert_allclose(
            lps_point(geometry, index), image.TransformIndexToPhysicalPoint(index[::-1]), atol=1e-9
        )
    again = from_lps(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    assert again.matches(geometry, tolerance=1e-9)


def test_lps_index_undoes_lps_point(oblique):
    geometry = oblique().geometry
    np.testing.assert_allclose(
        lps_index(geometry, lps_point(geometry, (1.5, -2, 7))), (1.5, -2, 7), atol=1e-9
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_codes_agree_with_nibabel(order, signs):
    direction = np.zeros((3, 3))
    for axis, world in enumerate(order):
        direction[world, axis] = signs[axis]
    geometry = from_lps((4, 5, 6), (1, 1, 1), (0, 0, 0), direction)
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ direction
    assert orientation_code(geometry) == "".join(nib.aff2axcodes(affine))


def test_an_oblique_axis_has_the_closest_code(oblique):
    assert orientation_code(oblique().geometry) == "LPS"
    assert orientation_code(oblique(2).geometry) == ""


def test_two_axes_at_45_degrees_still_get_different_letters():
    half = np.sqrt(0.5)
    direction = np.array([[half, half, 0], [-half, half, 0], [0, 0, 1]])
    code = orientation_code(from_lps((2, 2, 2), (1, 1, 1), (0, 0, 0), direction))
    assert len({{"L": "R", "A": "P", "I": "S"}.get(letter, letter) for letter in code}) == 3


def test_a_picture_has_no_code():
    assert orientation_code(Geometry.from_arrays((3, 4, 5), has_spacing=False)) == ""
