from __future__ import annotations

import math

import pytest

from medssl.evaluation.detection_metrics import box_iou, detection_scores, match
from medssl.volume.regions import Box


def at(start: int, score: float | None = None, label: str = "a", width: int = 4) -> Box:
    """A square box on a line."""
    return Box((start, 0), (start + width, 4), label, score)


def test_iou_by_hand():
    assert box_iou([at(0), at(10)], [at(2)]).tolist() == [[pytest.approx(2 / 6)], [0.0]]
    cube = Box((0, 0, 0), (2, 2, 2))
    assert float(box_iou([cube], [Box((1, 0, 0), (3, 2, 2))])[0, 0]) == pytest.approx(4 / 12)
    assert box_iou([], [at(0)]).shape == (0, 1)


def test_each_true_box_is_hit_once_by_the_best():
    found = [at(0, 0.6), at(1, 0.9), at(20, 0.3)]
    matches = match([(found, [at(0), at(40)])], iou=0.5)
    assert matches.scores.tolist() == [0.9, 0.6, 0.3]
    assert matches.hit.tolist() == [True, False, False]
    assert (matches.truths, matches.scans) == (2, 1)
    other = match([([at(0, 0.9, "b")], [at(0)])])
    assert other.hit.tolist() == [False], "classes must agree"


def test_froc_and_average_precision_by_hand():
    # scan 1: hit .9, miss .8, hit .6; scan 2: miss .7, one box never found
    scans = [
        ([at(0, 0.9), at(60, 0.8), at(20, 0.6)], [at(0), at(20)]),
        ([at(60, 0.7)], [at(0), at(40)]),
    ]
    matches = match(scans)
    wrong, sensitivity = matches.froc()
    assert wrong.tolist() == [0, 0.5, 1.0, 1.0]
    assert sensitivity.tolist() == [0.25, 0.25, 0.25, 0.5]
    assert matches.sensitivity_at(1.0) == 0.5
    assert matches.sensitivity_at(0.5) == 0.25
    assert matches.froc_score() == pytest.approx((0.25 * 3 + 0.5 * 4) / 7)
    assert matches.average_precision() == pytest.approx(0.25 * 1 + 0.25 * 0.5)


def test_equal_scores_fall_together():
    matches = match([([at(0, 0.5), at(60, 0.5)], [at(0)])])
    assert matches.froc()[0].tolist() == [1.0]
    assert matches.sensitivity_at(0.5) == 0.0


def test_map_counts_classes_that_are_there_and_depends_on_the_overlap():
    scans = [([at(1, 0.9), at(22, 0.8, "b")], [at(0), at(20, label="b")])]
    scores = detection_scores(scans, ("a", "b", "c"))
    assert scores["map_10"] == 1.0
    assert scores["map_50"] == 0.5, "2 of 6 is less than one half"
    assert scores["sensitivity_at_1"] == 1.0
    empty = detection_scores([([at(0, 0.5)], [])], ("a",))
    assert math.isnan(empty["map_10"])
    assert math.isnan(empty["froc"])
    assert detection_scores([([], [at(0)])], ("a",))["map_10"] == 0.0
