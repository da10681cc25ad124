from __future__ import annotations

import numpy as np
import pytest

from medssl.data.sampler import FamilySampler


def test_families_appear_equally_often_whatever_their_size() -> None:
    families = np.array([0] * 90 + [1] * 9 + [2])
    sampler = FamilySampler(families, 6)
    for step in range(50):
        counts = np.bincount(families[sampler.draw(step).rows], minlength=3)
        np.testing.assert_array_equal(counts, [2, 2, 2])


def test_without_balance_families_appear_by_their_size() -> None:
    families = np.array([0] * 90 + [1] * 10)
    sampler = FamilySampler(families, 10, balance=0)
    drawn = np.concatenate([families[sampler.draw(step).rows] for step in range(100)])
    assert np.bincount(drawn) == pytest.approx([900, 100], abs=1)
    np.testing.assert_allclose(FamilySampler(families, 10, balance=0.5).shares, [0.75, 0.25])


def test_every_volume_of_a_family_is_reached() -> None:
    families = np.array([1, 0, 1, 0, 0])
    sampler = FamilySampler(families, 4)
    rows = np.concatenate([sampler.draw(step).rows for step in range(100)])
    assert np.bincount(rows, minlength=5).min() > 40


def test_volumes_of_a_family_differ_while_they_last() -> None:
    families = np.array([0] * 3 + [1] * 40)
    sampler = FamilySampler(families, 16)
    for step in range(50):
        rows = sampler.draw(step).rows
        times = np.bincount(rows, minlength=43)
        assert sorted(times[:3]) == [2, 3, 3]  # eight out of three
        assert times[3:].max() == 1


def test_samples_of_a_family_come_together() -> None:
    families = np.arange(200) % 21
    sampler = FamilySampler(families, 16, together=2)
    seen = np.zeros(21)
    for step in range(200):
        rows = sampler.draw(step).rows
        counts = np.bincount(families[rows], minlength=21)
        assert set(counts) == {0, 2}
        assert len(np.unique(rows)) == 16
        seen += counts
    assert seen.min() > 0.8 * seen.mean()
    rest = np.bincount(families[FamilySampler(families, 7, together=3).draw(0).rows])
    assert sorted(rest[rest > 0]) == [1, 3, 3]


def test_a_draw_depends_on_seed_and_step_only() -> None:
    families = np.arange(50) % 7
    first, second = FamilySampler(families, 8, seed=3), FamilySampler(families, 8, seed=3)
    for step in range(5):
        first.draw(step)
    np.testing.assert_array_equal(first.draw(9).rows, second.draw(9).rows)
    np.testing.assert_array_equal(first.draw(9).seeds, second.draw(9).seeds)
    assert (first.draw(8).seeds != first.draw(9).seeds).all()
    assert (first.draw(9).seeds != FamilySampler(families, 8, seed=4).draw(9).seeds).all()


def test_processes_share_one_draw() -> None:
    families = np.arange(50) % 7
    whole = FamilySampler(families, 8).draw(2).rows
    parts = [FamilySampler(families, 8, rank=rank, world_size=2).draw(2).rows for rank in range(2)]
    assert sorted(np.concatenate(parts)) == sorted(whole)
    assert len(parts[0]) == len(parts[1]) == 4


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="no volume"):
        FamilySampler(np.zeros(0, int), 4)
    with pytest.raises(ValueError, match="shared by 3"):
        FamilySampler(np.zeros(9, int), 4, world_size=3)
