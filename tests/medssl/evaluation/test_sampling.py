"""Voxels that a person, or a robot, would label."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.evaluation.sampling import largest_errors, sample_voxels


@pytest.fixture(params=[2, 3])
def shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return (21, 17, 13)[: request.param]


def test_every_class_gives_its_share(shape: tuple[int, ...]) -> None:
    label = np.random.default_rng(0).integers(0, 3, shape)
    label[label == 2] = 5
    picks = sample_voxels(label, 4, np.random.default_rng(1))
    values, counts = np.unique(label.reshape(-1)[picks], return_counts=True)
    assert values.tolist() == [0, 1, 5]
    assert counts.tolist() == [4, 4, 4]
    assert len(np.unique(picks)) == 12
    assert np.array_equal(picks, sample_voxels(label, 4, np.random.default_rng(1)))
    assert not np.array_equal(picks, sample_voxels(label, 4, np.random.default_rng(2)))


def test_small_class_gives_all_it_has() -> None:
    label = np.zeros((5, 5), int)
    label[2, 3] = 1
    picks = sample_voxels(label, 4, np.random.default_rng(0))
    assert (label.reshape(-1)[picks] == 1).sum() == 1
    assert 2 * 5 + 3 in picks


def test_nothing_wrong_gives_nothing(shape: tuple[int, ...]) -> None:
    label = np.ones(shape, int)
    assert len(largest_errors(label, label, 5, (1.0,) * len(shape))) == 0


def test_first_correction_is_the_centre_of_the_largest_error() -> None:
    label = np.zeros((20, 20), int)
    label[2:9, 2:9] = 1  # 7 x 7, centre (5, 5)
    label[14:17, 14:17] = 1  # 3 x 3, centre (15, 15)
    picks = largest_errors(np.zeros_like(label), label, 1, (1.0, 1.0))
    assert picks.tolist() == [5 * 20 + 5]
    both = largest_errors(np.zeros_like(label), label, 2, (1.0, 1.0))
    assert sorted(both.tolist()) == [5 * 20 + 5, 15 * 20 + 15]


def test_depth_is_measured_in_millimetres() -> None:
    label = np.zeros((9, 30), int)
    label[1:8, 1:29] = 1
    row = int(largest_errors(np.zeros_like(label), label, 1, (10.0, 1.0))[0]) // 30
    column = int(largest_errors(np.zeros_like(label), label, 1, (10.0, 1.0))[0]) % 30
    assert 13 <= column <= 15  # thin rows make the columns decide
    assert 1 <= row <= 7


def test_corrections_are_errors_and_differ(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(3)
    label = generator.integers(0, 3, shape)
    prediction = generator.integers(0, 3, shape)
    picks = largest_errors(prediction, label, 6, (1.0, 2.0, 0.5)[: len(shape)])
    assert len(picks) == len(np.unique(picks)) == 18
    assert (prediction.reshape(-1)[picks] != label.reshape(-1)[picks]).all()
    assert np.bincount(label.reshape(-1)[picks]).tolist() == [6, 6, 6]


def test_fewer_errors_than_asked_for() -> None:
    label = np.zeros((4, 4), int)
    label[1, 1] = label[1, 2] = 1
    picks = largest_errors(np.zeros_like(label), label, 5, (1.0, 1.0))
    assert sorted(picks.tolist()) == [5, 6]


def test_one_large_region_is_covered_from_several_places() -> None:
    label = np.ones((40, 10), int)
    picks = largest_errors(np.zeros_like(label), label, 5, (1.0, 1.0))
    rows = sorted(int(p) // 10 for p in picks)
    assert len(set(picks.tolist())) == 5
    assert rows[-1] - rows[0] > 15


def test_labelled_voxels_are_not_asked_for_again() -> None:
    label = np.ones((11, 11), int)
    first = largest_errors(np.zeros_like(label), label, 1, (1.0, 1.0))
    assert first.tolist() == [5 * 11 + 5]
    second = largest_errors(np.zeros_like(label), label, 1, (1.0, 1.0), first)
    row, column = divmod(int(second[0]), 11)
    assert abs(row - 5) + abs(column - 5) > 2
