"""Laws of the protocols: perfect features are perfect, useless ones are chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from medssl.evaluation.cohort import Case
from medssl.evaluation.protocols import interactive, precision_at, transfer
from medssl.volume import Geometry, Volume

CLASSES = (1, 2)


def case(seed: int, spatial_dims: int) -> Case:
    shape = (15, 17, 13)[:spatial_dims]
    label = np.zeros(shape, np.int16)
    label[2:8, 3:9] = 1
    label[9:13, 4 + seed : 9 + seed] = 2
    geometry = Geometry.from_arrays(shape, (1.0, 1.5, 2.0)[:spatial_dims])
    return Case(f"s{seed}", Volume(label[None].astype(float), geometry, "MR", f"case-{seed}"), label)


@dataclass
class Oracle:
    """Knows every label."""

    def fit(self, case: Case, voxels: NDArray[np.intp], seed: int) -> Callable[[Case], NDArray[np.int16]]:
        return lambda other: other.label


@dataclass
class Constant:
    """Always says the same."""

    value: int

    def fit(self, case: Case, voxels: NDArray[np.intp], seed: int) -> Callable[[Case], NDArray[np.int16]]:
        return lambda other: np.full_like(other.label, self.value)


class Memory:
    """Background but for the labelled voxels: every click mends exactly one voxel."""

    def fit(self, case: Case, voxels: NDArray[np.intp], seed: int) -> Callable[[Case], NDArray[np.int16]]:
        prediction = np.zeros_like(case.label)
        prediction.reshape(-1)[voxels] = case.label.reshape(-1)[voxels]
        return lambda other: prediction


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_perfect_features_transfer_perfectly(spatial_dims: int) -> None:
    cases = [case(seed, spatial_dims) for seed in range(3)]
    metrics, detail = transfer(Oracle(), cases[0], cases[1:], classes=CLASSES, per_class=4, seed=0)
    assert metrics == {"dice": 1.0}
    assert detail == {"targets": {"case-1": 1.0, "case-2": 1.0}}


def test_background_is_not_counted() -> None:
    cases = [case(seed, 3) for seed in range(2)]
    metrics, _ = transfer(Constant(0), cases[0], cases[1:], classes=CLASSES, per_class=4, seed=0)
    assert metrics["dice"] == 0.0
    ones, _ = transfer(Constant(1), cases[0], cases[1:], classes=CLASSES, per_class=4, seed=0)
    share = (cases[1].label == 1).mean()
    assert ones["dice"] == pytest.approx(2 * share / (1 + share) / 2)  # class 2 is missed


def test_robot_stops_asking_when_all_is_right() -> None:
    metrics, series = interactive(
        Oracle(), case(0, 3), classes=CLASSES, per_class=5, rounds=3, goal=0.8, seed=0
    )
    assert metrics == {"first": 1.0, "last": 1.0, "mean": 1.0, "reached": 1.0, "voxels_to_goal": 15.0}
    assert series == {"dice": [1.0] * 4, "voxels": [15.0] * 4}


def test_every_round_adds_voxels_of_the_wrong_classes() -> None:
    metrics, series = interactive(
        Memory(), case(0, 2), classes=CLASSES, per_class=5, rounds=4, goal=0.8, seed=0
    )
    assert series["voxels"] == [15.0, 25.0, 35.0, 45.0, 50.0]  # class 2 has but 20 voxels
    assert np.all(np.diff(series["dice"]) > 0)
    assert metrics["first"] == series["dice"][0]
    assert metrics["last"] == series["dice"][-1]


def test_goal_that_is_missed_has_no_cost() -> None:
    metrics, _ = interactive(
        Constant(0), case(0, 3), classes=CLASSES, per_class=5, rounds=1, goal=0.8, seed=0
    )
    assert metrics["reached"] == 0.0
    assert "voxels_to_goal" not in metrics


def test_precision_of_perfect_hits_is_one() -> None:
    index = np.array([0, 1, 1, 2])
    metrics, detail = precision_at(np.array([[1, 2], [2, 1], [3, 3]]), np.array([1, 1, 2]), index)
    assert metrics == {"precision": 1.0, "chance": pytest.approx((0.5 + 0.25) / 2)}
    assert detail["precision"] == {1: 1.0, 2: 1.0}


def test_precision_of_random_hits_is_chance() -> None:
    generator = np.random.default_rng(0)
    index = generator.choice(3, 5000, p=[0.6, 0.3, 0.1])
    queries = np.repeat([1, 2], 400)
    metrics, _ = precision_at(generator.integers(0, 5000, (800, 10)), queries, index)
    assert metrics["precision"] == pytest.approx(metrics["chance"], abs=0.02)


def test_classes_count_alike_and_absent_hits_are_wrong() -> None:
    queries = np.array([1, 1, 1, 2])
    metrics, detail = precision_at(np.array([[0], [0], [0], [-1]]), queries, np.array([1]))
    assert detail["precision"] == {1: 1.0, 2: 0.0}
    assert metrics["precision"] == 0.5
