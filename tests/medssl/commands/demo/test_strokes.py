"""Scribbles stay inside their class, lie in one slice, and replay to the same labels."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.commands.demo.strokes import RADIUS_VOX, strokes

SHAPES = {2: (31, 41), 3: (9, 31, 41)}


def replay(sure: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    labels = np.zeros_like(sure)
    for edit in strokes(sure, count, np.random.default_rng(seed)):
        box = tuple(slice(a, a + n) for a, n in zip(edit.start, edit.before.shape, strict=True))
        np.testing.assert_array_equal(labels[box], edit.before)
        labels[box] = edit.after
    return labels


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_strokes_stay_inside_their_class(spatial_dims: int, rng: np.random.Generator) -> None:
    sure = rng.integers(0, 4, SHAPES[spatial_dims]).astype(np.uint8)
    labels = replay(sure, 5)
    painted = labels > 0
    np.testing.assert_array_equal(labels[painted], sure[painted])
    assert set(np.unique(labels)) == {0, 1, 2, 3}


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_stroke_in_an_open_field_is_a_disc_in_one_slice(spatial_dims: int) -> None:
    sure = np.zeros(SHAPES[spatial_dims], np.uint8)
    sure[(..., slice(10, 20), slice(10, 30))] = 2
    [edit] = strokes(np.pad(sure, 4, mode="edge") * 0 + 2, 1, np.random.default_rng(3))
    assert edit.before.shape[:-2] == (1,) * (spatial_dims - 2)
    assert max(edit.before.shape[-2:]) <= 2 * RADIUS_VOX + 1
    assert edit.class_id == 2
    assert edit.author == "demo"


def test_strokes_at_the_border_are_cut() -> None:
    sure = np.zeros((3, 20, 20), np.uint8)
    sure[0, 0, 0] = sure[2, 19, 19] = 1
    labels = replay(sure, 10)
    np.testing.assert_array_equal(labels, sure)


def test_equal_seeds_draw_equal_strokes(rng: np.random.Generator) -> None:
    sure = rng.integers(0, 3, SHAPES[3]).astype(np.uint8)
    np.testing.assert_array_equal(replay(sure, 3), replay(sure, 3))
    assert (replay(sure, 3) != replay(sure, 3, seed=1)).any()
