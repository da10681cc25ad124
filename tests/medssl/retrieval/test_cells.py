from __future__ import annotations

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.retrieval.cells import foreground, index_cells, pooled
from medssl.retrieval.search import centre_of, vector_at, vector_of
from medssl.volume import Geometry, Volume

SHAPES = {2: (61, 90), 3: (37, 61, 50)}


def scan(spatial_dims: int, rng: np.random.Generator) -> tuple[Volume, Volume]:
    """A body of 0 HU in air, and random features on its stride-4 cells."""
    shape = SHAPES[spatial_dims]
    direction = [[0, 1], [-1, 0]] if spatial_dims == 2 else [[0, 0, 1], [1, 0, 0], [0, -1, 0]]
    geometry = Geometry.from_arrays(
        shape, (1.2, 0.7, 0.9)[:spatial_dims], (3, -8, 5)[:spatial_dims], direction
    )
    array = np.full((1, *shape), -1000, np.int16)
    array[(0, *(slice(8, n - 10) for n in shape))] = 0
    cells = geometry.cells((4,) * spatial_dims)
    features = rng.normal(size=(6, *cells.shape)).astype(np.float16)
    return Volume(array, geometry, "CT", "body"), Volume(features, cells, "CT", "body")


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_pooled_cells_are_unit_means(spatial_dims: int, rng: np.random.Generator) -> None:
    volume, features = scan(spatial_dims, rng)
    found = pooled(features)
    block = features.array[(slice(None), *(slice(2, 4),) * spatial_dims)].astype(np.float32)
    mean = block.reshape(6, -1).mean(1)
    np.testing.assert_allclose(
        found.array[(slice(None), *(1,) * spatial_dims)], mean / np.linalg.norm(mean), atol=1e-6
    )
    expected = volume.geometry.cells((8,) * spatial_dims)
    assert found.geometry.matches(expected)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_cells_lie_in_the_body_and_know_their_place(spatial_dims: int, rng: np.random.Generator) -> None:
    volume, features = scan(spatial_dims, rng)
    cells = index_cells(features, volume)
    # a voxel of a cell that counts as foreground is at most a cell away from the body
    lower, upper = np.full(spatial_dims, 8 - 8), np.asarray(volume.geometry.shape) - 10 + 8
    assert ((cells.voxels >= lower) & (cells.voxels < upper)).all()
    assert len(cells.vectors) < np.prod(pooled(features).geometry.shape)
    world = volume.geometry.to_world(cells.voxels)
    assert np.abs(world - cells.mm[:, ::-1]).max() <= max(volume.geometry.spacing) / 2 + 1e-4
    np.testing.assert_allclose(np.linalg.norm(cells.vectors, axis=1), 1, atol=1e-5)


def test_the_limit_draws_some_cells(rng: np.random.Generator) -> None:
    volume, features = scan(3, rng)
    every, some = index_cells(features, volume), index_cells(features, volume, limit=17)
    assert len(some.vectors) == 17
    assert {tuple(v) for v in some.voxels} <= {tuple(v) for v in every.voxels}
    np.testing.assert_array_equal(index_cells(features, volume, limit=17).voxels, some.voxels)


def test_air_inside_the_body_is_foreground(rng: np.random.Generator) -> None:
    volume, features = scan(3, rng)
    volume.array[0, 12:24, 20:44, 20:36] = -1000
    mask = foreground(volume, features.geometry)
    assert mask[4, 8, 7]
    assert not mask[0, 0, 0]


def test_an_empty_image_is_all_foreground(rng: np.random.Generator) -> None:
    volume, features = scan(3, rng)
    assert foreground(volume.with_array(np.full_like(volume.array, -1000)), features.geometry).all()


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_query_at_a_cell_centre_is_the_indexed_vector(spatial_dims: int, rng: np.random.Generator) -> None:
    volume, features = scan(spatial_dims, rng)
    odd = Volume(
        np.repeat(volume.array, 1, 0), volume.geometry, volume.modality, volume.id
    )  # cell centres fall between voxels, so compare along the line
    cells = index_cells(features, odd)
    row = len(cells.vectors) // 2
    voxel = tuple(int(v) for v in cells.voxels[row])
    other = tuple(v - 1 if volume.geometry.to_world(voxel)[0] != 0 else v for v in voxel)
    found = vector_at(features, volume.geometry, voxel)
    assert found @ cells.vectors[row] > 0.9
    assert found @ cells.vectors[row] > vector_at(features, volume.geometry, other) @ cells.vectors[row] - 0.2


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_region_of_one_cell_is_that_cell(spatial_dims: int, rng: np.random.Generator) -> None:
    volume, features = scan(spatial_dims, rng)
    mask = np.zeros(volume.geometry.shape, bool)
    mask[(slice(16, 24),) * spatial_dims] = True
    found = vector_of(features, volume.geometry, mask)
    np.testing.assert_allclose(found, pooled(features).array[(slice(None), *(2,) * spatial_dims)], atol=1e-5)
    mask[(slice(24, 32), *(slice(16, 24),) * (spatial_dims - 1))] = True
    two = pooled(features).array[(slice(None), slice(2, 4), *(2,) * (spatial_dims - 1))].sum(1)
    np.testing.assert_allclose(
        vector_of(features, volume.geometry, mask), two / np.linalg.norm(two), atol=1e-5
    )


def test_centre_of_a_region_is_painted() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2, 2:7] = mask[6, 2:7] = True
    assert mask[centre_of(mask)]


def test_queries_outside_are_refused(rng: np.random.Generator) -> None:
    volume, features = scan(3, rng)
    with pytest.raises(InputError, match="0,61,3 lies outside the image of 37,61,50 voxels"):
        vector_at(features, volume.geometry, (0, 61, 3))
    with pytest.raises(InputError, match="has 3 numbers, 2 were given"):
        vector_at(features, volume.geometry, (0, 6))
    with pytest.raises(InputError, match="paint at least one voxel"):
        vector_of(features, volume.geometry, np.zeros(volume.geometry.shape, bool))
