from __future__ import annotations

import numpy as np
import pytest

from medssl.volume.geometry import Geometry
from medssl.volume.resample import axis_positions, interpolate, interpolation_matrices, resample_nearest


def oblique(shape: tuple[int, ...]) -> Geometry:
    angle = 0.4
    c, s = np.cos(angle), np.sin(angle)
    direction = [[c, -s], [s, c]] if len(shape) == 2 else [[1, 0, 0], [0, c, -s], [0, s, c]]
    spacing = (0.7, 1.3, 2.9)[-len(shape) :]
    return Geometry.from_arrays(shape, spacing, np.arange(len(shape)) * 3 - 4, direction)


@pytest.mark.parametrize("shape", [(13, 9), (7, 13, 9)])
def test_positions_agree_with_world(shape: tuple[int, ...]) -> None:
    source = oblique(shape)
    target = source.cells((4,) * len(shape))
    corner = tuple(n - 1 for n in target.shape)
    expected = source.to_index(target.to_world(corner))
    found = [p[-1] for p in axis_positions(source, target)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("shape", [(13, 9), (7, 13, 9)])
def test_linear_field_is_reproduced_inside(shape: tuple[int, ...]) -> None:
    source = oblique(shape)
    target = source.resampled(tuple(2 * n + 1 for n in shape))
    slope = np.arange(1, len(shape) + 1)
    field = (source.to_world(np.stack(np.indices(shape), -1)) @ slope)[None]
    expected = target.to_world(np.stack(np.indices(target.shape), -1)) @ slope
    found = interpolate(field, interpolation_matrices(source, target))[0]
    inner = (slice(2, -2),) * len(shape)
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-4)


@pytest.mark.parametrize("factor", [0.6, 1.9])
def test_parts_equal_the_whole(factor: float, rng: np.random.Generator) -> None:
    source = oblique((9, 17, 14))
    target = source.resampled(tuple(round(n * factor) for n in source.shape))
    array = rng.normal(size=(2, *source.shape)).astype(np.float32)
    matrices = interpolation_matrices(source, target)
    whole = interpolate(array, matrices)
    part = interpolate(array, (matrices[0][1:4], matrices[1][3:7], matrices[2][2:]))
    np.testing.assert_allclose(part, whole[:, 1:4, 3:7, 2:], atol=1e-6)


def test_coarser_grid_averages() -> None:
    source = Geometry.from_arrays((40, 40))
    array = np.indices((40, 40)).sum(0)[None] % 2
    coarse = source.resampled((10, 10))
    found = interpolate(array, interpolation_matrices(source, coarse))
    np.testing.assert_allclose(found[:, 1:-1, 1:-1], 0.5, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_nearest_gives_each_cell_its_own_voxels(stride: int) -> None:
    source = oblique((11, 10, 13))
    cells = source.cells((stride,) * 3)
    labels = np.arange(np.prod(cells.shape)).reshape(1, *cells.shape)
    found = resample_nearest(labels, cells, source)
    expected = labels.repeat(stride, 1).repeat(stride, 2).repeat(stride, 3)[:, :11, :10, :13]
    np.testing.assert_array_equal(found, expected)


def test_other_directions_are_refused() -> None:
    with pytest.raises(ValueError, match="same directions"):
        axis_positions(oblique((4, 4, 4)), Geometry.from_arrays((4, 4, 4)))
