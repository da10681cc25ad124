"""How well class probabilities agree with the truth: AUC with its interval, accuracy, F1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


def auc(scores: Floats, positive: Bools) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Args:
        scores: (N,).
        positive: (N,).

    Returns:
        In [0, 1]; NaN where one kind is missing.
    """
    count = int(positive.sum())
    if count in (0, len(positive)):
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def macro_auc(probabilities: Floats, target: Bools) -> float:
    """Mean AUC of the classes that have both kinds, each against the rest; NaN where none has.

    Args:
        probabilities: (N, K).
        target: (N, K) whether a class is true.
    """
    single = [auc(probabilities[:, k], target[:, k]) for k in range(target.shape[1])]
    present = [value for value in single if np.isfinite(value)]
    return float(np.mean(present)) if present else float("nan")


def bootstrap_interval(
    probabilities: Floats,
    target: Bools,
    subjects: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the macro AUC; whole subjects are drawn, as images of one are alike.

    Args:
        probabilities: (N, K).
        target: (N, K).
        subjects: (N,) who each image is of.
        seed: of the draws.
        resamples: number of draws; those in which no class has both kinds are left out.
        level: of the interval.

    Returns:
        Lower and upper end; NaN where no draw can be judged.
    """
    names, owner = np.unique(np.asarray(subjects), return_inverse=True)
    rows = [np.flatnonzero(owner == index) for index in range(len(names))]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        chosen = np.concatenate([rows[index] for index in rng.integers(len(names), size=len(names))])
        values.append(macro_auc(probabilities[chosen], target[chosen]))
    known = np.asarray([value for value in values if np.isfinite(value)])
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def macro_f1(predicted: Bools, target: Bools) -> float:
    """Mean F1 of the classes that are true or predicted somewhere; NaN where none is.

    Args:
        predicted: (N, K).
        target: (N, K).
    """
    both = (predicted & target).sum(axis=0)
    total = predicted.sum(axis=0) + target.sum(axis=0)
    seen = total > 0
    return float((2 * both[seen] / total[seen]).mean()) if seen.any() else float("nan")


def accuracy(probabilities: Floats, target: Bools, multi_label: bool) -> float:
    """Share of the decisions that are right: one per class and image, or one per image.

    Args:
        probabilities: (N, K).
        target: (N, K).
        multi_label: whether several classes may be true at once.
    """
    chosen = decide(probabilities, multi_label)
    right = chosen == target if multi_label else (chosen & target).any(axis=1)
    return float(right.mean())


def decide(probabilities: Floats, multi_label: bool) -> Bools:
    """(N, K) predicted classes: above one half each, or the most likely one."""
    if multi_label:
        above: Bools = probabilities > 0.5
        return above
    chosen = np.zeros(probabilities.shape, bool)
    chosen[np.arange(len(chosen)), probabilities.argmax(axis=1)] = True
    return chosen
