from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from medssl.evaluation.classification_metrics import auc, bootstrap_interval, decide, macro_auc, macro_f1


def test_auc_counts_pairs_and_ties_half(rng):
    scores = np.array([0.1, 0.4, 0.4, 0.8])
    assert auc(scores, np.array([False, False, True, True])) == pytest.approx(3.5 / 4)
    values, positive = rng.random(50).round(1), rng.random(50) < 0.3
    assert auc(values, positive) == pytest.approx(roc_auc_score(positive, values))
    assert math.isnan(auc(scores, np.ones(4, bool)))


def test_macro_auc_leaves_out_what_cannot_be_judged(rng):
    probabilities = rng.random((30, 3))
    target = np.zeros((30, 3), bool)
    target[np.arange(30), rng.integers(2, size=30)] = True
    expected = np.mean([roc_auc_score(target[:, k], probabilities[:, k]) for k in range(2)])
    assert macro_auc(probabilities, target) == pytest.approx(expected)


def test_interval_holds_the_value_shrinks_with_subjects_and_knows_that_images_of_one_are_alike(rng):
    def interval(subjects: int, images: int) -> tuple[float, float]:
        positive = np.repeat(np.arange(subjects) % 2 == 0, images)
        scores = np.repeat(rng.normal(size=subjects), images) + positive
        names = np.repeat(np.arange(subjects), images).astype(str)
        return bootstrap_interval(scores[:, None], positive[:, None], names.tolist(), resamples=200)

    low, high = interval(200, 1)
    assert low < 0.76 < high  # two normals one standard deviation apart
    few = interval(20, 10)
    assert few[1] - few[0] > 2 * (high - low), "200 images of 20 subjects say less than of 200"
    target = np.array([[True], [False]] * 5)
    assert bootstrap_interval(target.astype(float), target, list("abcdefghij"), resamples=50) == (1.0, 1.0)
    assert math.isnan(bootstrap_interval(np.ones((2, 1)), np.ones((2, 1), bool), ["a", "b"], resamples=10)[0])


def test_decisions_and_f1(rng):
    probabilities = np.array([[0.7, 0.6], [0.2, 0.4]])
    assert decide(probabilities, multi_label=True).tolist() == [[True, True], [False, False]]
    assert decide(probabilities, multi_label=False).tolist() == [[True, False], [False, True]]
    predicted, target = rng.random((40, 3)) < 0.5, rng.random((40, 3)) < 0.5
    assert macro_f1(predicted, target) == pytest.approx(f1_score(target, predicted, average="macro"))
