"""Voxels and their grid belong together."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.volume import Geometry, Volume


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_array_must_fit_the_grid(spatial_dims):
    geometry = Geometry.from_arrays((5, 6, 7)[:spatial_dims])
    assert Volume(np.zeros((2, *geometry.shape)), geometry).spatial_dims == spatial_dims
    for shape in (geometry.shape, (1, *geometry.shape[::-1]), (1, 1, *geometry.shape)):
        with pytest.raises(ValueError, match="must be"):
            Volume(np.zeros(shape), geometry)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_other_values_in_the_same_place(spatial_dims):
    geometry = Geometry.from_arrays((5, 6, 7)[:spatial_dims])
    volume = Volume(np.zeros((1, *geometry.shape)), geometry, "CT", "a", ("note",))
    one = volume.with_array(np.ones(geometry.shape), modality="", notes=())
    many = volume.with_array(np.ones((4, *geometry.shape)))
    assert one.array.shape == (1, *geometry.shape)
    assert (one.modality, one.notes, one.id) == ("", (), "a")
    assert many.array.shape == (4, *geometry.shape)
    assert many.geometry is one.geometry is geometry
    assert many.notes == ("note",)
