from __future__ import annotations

import pytest

from medssl.evaluation.convergence import convergence, first_step


def test_the_published_speed_up_by_hand() -> None:
    """Scratch is best (0.9) at step 1000; the other training holds 0.9 at step 150: 85 % saved."""
    found = convergence([0, 150, 1000], [0.5, 0.9, 0.95], [0, 150, 1000], [0.1, 0.4, 0.9])
    assert found == {"best": 0.95, "target": 0.9, "reached": 1, "steps_to_target": 150, "speed_up": 0.85}


def test_a_slower_training_has_a_negative_speed_up() -> None:
    found = convergence([10, 20, 40], [0, 0, 0.5], [10, 20, 40], [0.1, 0.5, 0.5])
    assert found["speed_up"] == pytest.approx(-1)


def test_a_target_that_is_never_reached_has_no_speed_up() -> None:
    found = convergence([10, 20], [0, 0.4], [10, 20], [0, 0.5])
    assert found == {"best": 0.4, "target": 0.5, "reached": 0}
    assert first_step([10, 20], [0, 0.4], 0.5) is None


def test_against_itself_nothing_is_saved() -> None:
    assert convergence([10, 20], [0, 0.4], [10, 20], [0, 0.4])["speed_up"] == 0


def test_a_training_from_scratch_that_never_gets_better_is_no_target() -> None:
    nothing = {"best": 0.0, "target": 0.0, "reached": 0}
    assert convergence([0, 20], [0, 0], [0, 20], [0, 0]) == nothing
    worse = convergence([0, 20], [0.5, 0.6], [0, 20], [0.5, 0.4])
    assert worse == {"best": 0.6, "target": 0.5, "reached": 0}
