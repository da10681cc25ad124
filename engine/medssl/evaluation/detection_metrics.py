"""How well found boxes agree with true ones: FROC and average precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medssl.volume.regions import Box

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per scan at which the FROC score takes the sensitivity (LUNA16)."""

IOUS = (0.1, 0.5)


@dataclass(frozen=True, eq=False)
class Matches:
    """Found boxes of several scans and what each of them hit.

    Args:
        scores: (N,) in [0, 1].
        hit: (N,) whether the box is the first, by score, on a true box of its class.
        truths: number of true boxes.
        scans: number of scans.
    """

    scores: NDArray[np.float64]
    hit: NDArray[np.bool_]
    truths: int
    scans: int

    def froc(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """False positives per scan and sensitivity as the threshold falls, one entry per distinct score."""
        order = np.argsort(-self.scores, kind="stable")
        hits, misses = np.cumsum(self.hit[order]), np.cumsum(~self.hit[order])
        ends = np.flatnonzero(np.diff(self.scores[order], append=-np.inf))  # equal scores fall together
        return misses[ends] / max(self.scans, 1), hits[ends] / max(self.truths, 1)

    def sensitivity_at(self, rate: float) -> float:
        """Largest sensitivity with at most ``rate`` false positives per scan; NaN without a true box."""
        if not self.truths:
            return float("nan")
        wrong, sensitivity = self.froc()
        return float(sensitivity[wrong <= rate].max(initial=0.0))

    def froc_score(self) -> float:
        """Mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per scan."""
        return float(np.mean([self.sensitivity_at(rate) for rate in RATES]))

    def average_precision(self) -> float:
        """Area under precision over recall, precision made to fall (all points); NaN without a true box."""
        if not self.truths:
            return float("nan")
        wrong, recall = self.froc()
        hits, misses = recall * self.truths, wrong * self.scans
        precision = hits / np.maximum(hits + misses, 1)
        falling = np.maximum.accumulate(precision[::-1])[::-1]
        return float((np.diff(recall, prepend=0.0) * falling).sum())


def box_iou(first: Sequence[Box], second: Sequence[Box]) -> NDArray[np.float64]:
    """(N, M) intersection over union in [0, 1]."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    a, b = (np.array([[box.start, box.stop] for box in boxes], float) for boxes in (first, second))
    low, high = np.maximum(a[:, None, 0], b[None, :, 0]), np.minimum(a[:, None, 1], b[None, :, 1])
    shared = (high - low).clip(min=0).prod(axis=-1)
    sizes = [(boxes[:, 1] - boxes[:, 0]).prod(axis=-1) for boxes in (a, b)]
    overlap: NDArray[np.float64] = shared / (sizes[0][:, None] + sizes[1][None] - shared)
    return overlap


def match(scans: Sequence[tuple[Sequence[Box], Sequence[Box]]], iou: float = 0.1, label: str = "") -> Matches:
    """Give every found box, best first, the free true box that it overlaps most.

    A second box on one object is a false positive.

    Args:
        scans: (found, true) boxes of every scan; only boxes of one class can match.
        iou: least overlap of a hit.
        label: class to look at; empty for all.
    """
    scores, hit, truths = [], [], 0
    for found, true in scans:
        ours = sorted((box for box in found if label in ("", box.label)), key=lambda b: -(b.score or 0.0))
        theirs = [box for box in true if label in ("", box.label)]
        overlap = box_iou(ours, theirs)
        for row, mine in enumerate(ours):
            for column, other in enumerate(theirs):
                if mine.label != other.label:
                    overlap[row, column] = 0
        free = np.ones(len(theirs), bool)
        for row, box in enumerate(ours):
            best = int(np.argmax(np.where(free, overlap[row], -1))) if free.any() else -1
            is_hit = best >= 0 and overlap[row, best] >= iou
            if is_hit:
                free[best] = False
            scores.append(1.0 if box.score is None else box.score)
            hit.append(is_hit)
        truths += len(theirs)
    return Matches(np.asarray(scores, float), np.asarray(hit, bool), truths, len(scans))


def detection_scores(
    scans: Sequence[tuple[Sequence[Box], Sequence[Box]]], names: Sequence[str], ious: Sequence[float] = IOUS
) -> Mapping[str, float]:
    """mAP over the classes that are there, FROC score and sensitivity at 1 false positive per scan.

    Args:
        scans: (found, true) boxes of every scan.
        names: of the classes.
        ious: overlaps from which a box is a hit; FROC takes the first.

    Returns:
        ``map_10``, ``map_50`` (by IoU in percent), ``froc``, ``sensitivity_at_1``; NaN without a true box.
    """
    scores: dict[str, float] = {}
    for iou in ious:
        single = [match(scans, iou, name).average_precision() for name in names]
        present = [value for value in single if np.isfinite(value)]
        scores[f"map_{round(100 * iou)}"] = float(np.mean(present)) if present else float("nan")
    pooled = match(scans, ious[0])
    scores["froc"] = pooled.froc_score()
    scores["sensitivity_at_1"] = pooled.sensitivity_at(1.0)
    return scores
