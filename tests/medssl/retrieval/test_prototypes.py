from __future__ import annotations

import numpy as np
import pytest

from medssl.retrieval.prototypes import assign_cells, cluster_centres, label_map, merge_prototypes


def unit(array: np.ndarray) -> np.ndarray:
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def test_enough_groups_leave_prototypes_alone(rng: np.random.Generator) -> None:
    prototypes = unit(rng.normal(size=(9, 5)))
    for k in (9, 50):
        np.testing.assert_array_equal(merge_prototypes(prototypes, k), np.arange(9))


@pytest.mark.parametrize("k", [1, 2, 5, 11])
def test_exactly_k_groups_of_the_used_prototypes(k: int, rng: np.random.Generator) -> None:
    counts = rng.integers(0, 3, 30) * rng.integers(1, 900, 30)
    group = merge_prototypes(unit(rng.normal(size=(30, 8))), k, counts)
    assert set(group[counts > 0]) == set(range(k))
    assert (group[counts == 0] == -1).all()


def test_fewer_groups_are_unions_of_more(rng: np.random.Generator) -> None:
    prototypes, counts = unit(rng.normal(size=(20, 6))), rng.integers(1, 100, 20)
    finer = merge_prototypes(prototypes, 12, counts)
    for k in (11, 6, 2):
        coarser = merge_prototypes(prototypes, k, counts)
        pairs = set(zip(finer, coarser, strict=True))
        assert len(pairs) == 12  # each finer group lies in one coarser group
        finer_count = len(set(coarser))
        assert finer_count == k


def test_near_prototypes_join_first(rng: np.random.Generator) -> None:
    centres = np.eye(4, 10)
    prototypes = unit(np.repeat(centres, 5, 0) + 0.05 * rng.normal(size=(20, 10)))
    order = rng.permutation(20)
    group = merge_prototypes(prototypes[order], 4)
    for number in range(4):
        assert len(set(group[order // 5 == number])) == 1


def test_merging_follows_a_brute_force_ward(rng: np.random.Generator) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    prototypes = unit(rng.normal(size=(15, 4)))
    tree = hierarchy.ward(prototypes)
    for k in (2, 4, 9):
        expected = hierarchy.fcluster(tree, k, "maxclust")
        found = merge_prototypes(prototypes, k)
        assert len(set(zip(expected, found, strict=True))) == k


def test_less_than_one_group_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        merge_prototypes(np.eye(3), 0)


def test_clusters_find_separated_directions(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 3, 600)
    vectors = (np.eye(3, 8)[truth] * rng.uniform(0.5, 5, (600, 1)) + 0.02 * rng.normal(size=(600, 8))).astype(
        np.float32
    )
    centres = cluster_centres(vectors, 3)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    found = assign_cells(vectors.T.reshape(8, 20, 30), centres).ravel()
    assert len(set(zip(truth, found, strict=True))) == 3
    np.testing.assert_array_equal(cluster_centres(vectors, 3), centres)  # same seed, same centres


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_directions_from_an_origin_are_those_of_shifted_features(
    spatial_dims: int, rng: np.random.Generator
) -> None:
    features = rng.normal(size=(6, 5, 7, 4)[: spatial_dims + 1]).astype(np.float32)
    centres = unit(rng.normal(size=(3, 6))).astype(np.float32)
    origin = rng.normal(size=6).astype(np.float32)
    shifted = features - origin.reshape(-1, *(1,) * spatial_dims)
    np.testing.assert_array_equal(
        assign_cells(features, centres, origin), np.tensordot(centres, shifted, 1).argmax(0)
    )


def test_more_clusters_than_vectors(rng: np.random.Generator) -> None:
    assert cluster_centres(rng.normal(size=(4, 8)), 9).shape == (4, 8)


def test_labels_begin_at_one_inside_the_mask() -> None:
    assigned = np.array([[0, 1], [2, 2]])
    mask = np.array([[True, True], [True, False]])
    found = label_map(assigned, np.array([1, 0, 1]), mask)
    np.testing.assert_array_equal(found, [[2, 1], [2, 0]])
