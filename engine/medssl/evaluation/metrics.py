"""How well a segmentation agrees with the truth: overlap and surface distance, per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medssl.volume import Geometry

Mask = NDArray[np.integer]


def dice(prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    """Dice 2|A n B| / (|A| + |B|) in [0, 1] of two masks of one shape; NaN where both are empty."""
    total = int(prediction.sum()) + int(target.sum())
    return 2 * int((prediction & target).sum()) / total if total else float("nan")


@dataclass
class Overlap:
    """Voxel counts per class, added up over volumes or patches before Dice is taken.

    Args:
        values: mask value of each class.
    """

    values: Sequence[int]
    shared: dict[int, int] = field(default_factory=dict)
    predicted: dict[int, int] = field(default_factory=dict)
    true: dict[int, int] = field(default_factory=dict)

    def add(self, prediction: Mask, target: Mask, labelled: NDArray[np.bool_] | None = None) -> None:
        """Count one volume.

        Args:
            prediction: (*S) mask values.
            target: (*S) mask values.
            labelled: (*S) where the target is known; everywhere by default.
        """
        if labelled is not None:
            prediction, target = prediction[labelled], target[labelled]
        for value in self.values:
            ours, truth = prediction == value, target == value
            self.shared[value] = self.shared.get(value, 0) + int((ours & truth).sum())
            self.predicted[value] = self.predicted.get(value, 0) + int(ours.sum())
            self.true[value] = self.true.get(value, 0) + int(truth.sum())

    def dice(self) -> dict[int, float]:
        """Dice in [0, 1] per class that the target holds; absent classes are left out."""
        return {
            value: 2 * self.shared[value] / (self.predicted[value] + self.true[value])
            for value in self.values
            if self.true.get(value, 0) > 0
        }


def dice_scores(
    prediction: Mask,
    target: Mask,
    values: Sequence[int],
    labelled: NDArray[np.bool_] | None = None,
) -> dict[int, float]:
    """Dice in [0, 1] of each class that the target holds.

    Args:
        prediction: (*S) mask values.
        target: (*S) mask values.
        values: classes to report.
        labelled: (*S) where the target is known; everywhere by default.
    """
    overlap = Overlap(values)
    overlap.add(prediction, target, labelled)
    return overlap.dice()


def mean_dice(scores: Mapping[int, float], background: int | None = None) -> float:
    """Mean over the classes, the background left out; NaN where nothing remains."""
    counted = [score for value, score in scores.items() if value != background]
    return float(np.mean(counted)) if counted else float("nan")


def surface_distance(
    prediction: NDArray[np.bool_], target: NDArray[np.bool_], geometry: Geometry, percentile: float = 95
) -> float:
    """Percentile of the symmetric surface distance in mm (HD95 by default).

    Both directions are taken alone and the larger percentile is returned, as MONAI does.

    Args:
        prediction: (*S) mask.
        target: (*S) mask.
        geometry: their grid.
        percentile: 100 gives the Hausdorff distance.

    Returns:
        Millimetres; NaN where one mask is empty.
    """
    if not prediction.any() or not target.any():
        return float("nan")
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, target)]
    reached = []
    for here, there in (surfaces, surfaces[::-1]):
        distance = ndimage.distance_transform_edt(~there, sampling=geometry.spacing)
        reached.append(float(np.percentile(distance[here], percentile)))
    return max(reached)
