from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance

from medssl.evaluation.metrics import Overlap, dice, dice_scores, mean_dice, surface_distance
from medssl.volume import Geometry


def test_dice_by_hand():
    a = np.array([1, 1, 1, 0, 0], bool)
    b = np.array([0, 1, 1, 1, 0], bool)
    assert dice(a, b) == pytest.approx(2 * 2 / 6)
    assert dice(a, a) == 1
    assert dice(a, ~a) == 0
    assert math.isnan(dice(a & False, b & False))


# MONAI 1.6 calls its own deprecated argument
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*:FutureWarning")
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_equal_to_monai(rng, spatial_dims):
    shape = (9, 8, 7)[:spatial_dims]
    prediction, target = rng.integers(0, 3, shape), rng.integers(0, 3, shape)
    geometry = Geometry.from_arrays(shape, (0.7, 1.5, 3.0)[:spatial_dims])
    ours = dice_scores(prediction, target, (0, 1, 2))
    one_hot = [torch.from_numpy(np.stack([x == c for c in range(3)])[None]) for x in (prediction, target)]
    theirs = compute_dice(*one_hot, include_background=True)[0]
    np.testing.assert_allclose([ours[c] for c in range(3)], theirs, rtol=1e-5)
    distance = surface_distance(prediction == 1, target == 1, geometry)
    expected = compute_hausdorff_distance(*one_hot, percentile=95, spacing=list(geometry.spacing))[0, 0]
    assert distance == pytest.approx(float(expected), abs=1e-4)


def test_counts_add_up_over_volumes_and_unlabelled_voxels_do_not_count():
    first = np.array([[1, 1, 0], [2, 0, 0]])
    second = np.array([[1, 0, 0], [2, 2, 0]])
    together = Overlap((1, 2))
    together.add(first, second)
    together.add(second, first)
    assert together.dice() == {1: pytest.approx(2 / 3), 2: pytest.approx(2 / 3)}
    known = np.array([[True, False, True], [True, False, False]])
    assert dice_scores(first, second, (1, 2, 3), known) == {1: 1.0, 2: 1.0}


def test_mean_leaves_the_background_out():
    assert mean_dice({0: 1.0, 1: 0.5, 2: 0.7}, background=0) == pytest.approx(0.6)
    assert math.isnan(mean_dice({0: 1.0}, background=0))


def test_surface_distance_is_in_millimetres():
    shape = (5, 20)
    a, b = np.zeros(shape, bool), np.zeros(shape, bool)
    a[:, 3], b[:, 8] = True, True
    assert surface_distance(a, b, Geometry.from_arrays(shape, (1.0, 2.5))) == pytest.approx(12.5)
    assert math.isnan(surface_distance(a, b & False, Geometry.from_arrays(shape)))
