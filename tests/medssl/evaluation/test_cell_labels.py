"""Labels of cells."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.evaluation.cell_labels import majority_labels
from medssl.volume import Geometry


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_majority_equals_brute_force(spatial_dims: int) -> None:
    shape, stride = (9, 12, 10)[:spatial_dims], (4,) * spatial_dims
    geometry = Geometry.from_arrays(shape, (0.7, 1.0, 1.2)[:spatial_dims])
    label = np.random.default_rng(0).choice(3, shape, p=[0.5, 0.3, 0.2]).astype(np.int16)
    cells = geometry.cells(stride)
    result = majority_labels(label, geometry, cells)
    assert result.shape == cells.shape
    for index in np.ndindex(*cells.shape):
        part = label[tuple(slice(4 * i, 4 * i + 4) for i in index)]
        assert result[index] == np.bincount(part.reshape(-1)).argmax()


def test_cells_finer_than_voxels_take_the_nearest() -> None:
    geometry = Geometry.from_arrays((3, 2), (8.0, 1.0))
    label = np.array([[0, 0], [1, 1], [2, 2]], np.int16)
    cells = geometry.resampled((12, 2))  # cells of 2 mm in voxels of 8 mm
    assert majority_labels(label, geometry, cells)[:, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4
