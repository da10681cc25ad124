"""What is measured: labels that travel, corrections that pay, hits that match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medssl.evaluation.cohort import Case
from medssl.evaluation.metrics import dice_scores, mean_dice
from medssl.evaluation.sampling import largest_errors, sample_voxels

Labels = NDArray[np.integer]


class Segmenter(Protocol):
    """Few labelled voxels of one case -> a segmentation of any case."""

    def fit(self, case: Case, voxels: NDArray[np.intp], seed: int) -> Callable[[Case], Labels]:
        """Learn from the true classes of some voxels.

        Args:
            case: the labelled case.
            voxels: (N,) flat indices of its labelled voxels; no other label may be looked at.
            seed: of any randomness in the fit.

        Returns:
            From a case to its (*S) predicted classes.
        """
        ...


def transfer(
    segmenter: Segmenter,
    source: Case,
    targets: Sequence[Case],
    *,
    classes: Sequence[int],
    per_class: int,
    seed: int,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Label one subject, segment the others.

    Args:
        segmenter: the feature kind.
        source: subject whose voxels are labelled.
        targets: the other subjects.
        classes: foreground classes; the Dice is averaged over those that the target has.
        per_class: labelled voxels per class, background included.
        seed: picks the voxels.

    Returns:
        Metrics {"dice"}, in [0, 1]; detail with the Dice of every target.
    """
    voxels = sample_voxels(source.label, per_class, np.random.default_rng(seed))
    predict = segmenter.fit(source, voxels, seed)
    scores = {case.volume.id: agreement(predict(case), case.label, classes) for case in targets}
    return {"dice": float(np.mean(list(scores.values())))}, {"targets": scores}


def interactive(
    segmenter: Segmenter,
    case: Case,
    *,
    classes: Sequence[int],
    per_class: int,
    rounds: int,
    goal: float,
    seed: int,
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """A robot user: a few random voxels per class, then rounds of voxels from the largest errors.

    Args:
        segmenter: the feature kind.
        case: the subject that is labelled and segmented.
        classes: foreground classes.
        per_class: voxels per class and round.
        rounds: rounds after the first one.
        goal: Dice whose cost in labelled voxels is reported.
        seed: picks the first voxels.

    Returns:
        Metrics: "first", "last" and "mean" Dice over the rounds, "reached" (1 where the goal was met) and
        then "voxels_to_goal"; series "dice" and "voxels", one entry per round.
    """
    voxels = sample_voxels(case.label, per_class, np.random.default_rng(seed))
    scores: list[float] = []
    labelled: list[float] = []
    for turn in range(rounds + 1):
        prediction = segmenter.fit(case, voxels, seed)(case)
        scores.append(agreement(prediction, case.label, classes))
        labelled.append(float(len(voxels)))
        if turn < rounds:
            spacing = case.volume.geometry.spacing
            corrections = largest_errors(prediction, case.label, per_class, spacing, voxels)
            voxels = np.union1d(voxels, corrections)
    reached = [count for count, score in zip(labelled, scores, strict=True) if score >= goal]
    metrics = {"first": scores[0], "last": scores[-1], "mean": float(np.mean(scores))}
    metrics["reached"] = float(bool(reached))
    if reached:
        metrics["voxels_to_goal"] = reached[0]
    return metrics, {"dice": scores, "voxels": labelled}


def precision_at(
    hits: NDArray[np.integer], query_labels: NDArray[np.integer], index_labels: NDArray[np.integer]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Precision of search hits by label.

    Args:
        hits: (Q, k) entries of the index, -1 where there were fewer.
        query_labels: (Q,) class of each query, none of them background.
        index_labels: (M,) class of every entry.

    Returns:
        Metrics "precision", the mean over classes, and "chance", the share of each class in the index,
        averaged likewise; detail with both per class.
    """
    right = (index_labels[np.maximum(hits, 0)] == query_labels[:, None]) & (hits >= 0)
    per_class = {int(c): float(right[query_labels == c].mean()) for c in np.unique(query_labels)}
    chance = {c: float((index_labels == c).mean()) for c in per_class}
    metrics = {
        "precision": float(np.mean(list(per_class.values()))),
        "chance": float(np.mean(list(chance.values()))),
    }
    return metrics, {"precision": per_class, "chance": chance}


def agreement(prediction: Labels, label: Labels, classes: Sequence[int]) -> float:
    """Dice averaged over the foreground classes that the label has."""
    return mean_dice(dice_scores(prediction, label, classes))
