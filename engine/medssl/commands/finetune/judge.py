"""Probe and network on the same held-out labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medssl.commands.finetune.cohort import Cohort, Mask
from medssl.data.labelled import UNLABELLED
from medssl.evaluation.metrics import Overlap, mean_dice
from medssl.jobs.progress import Progress, Steps
from medssl.volume import Volume

if TYPE_CHECKING:
    from medssl.commands.workspace import Workspace
    from medssl.inference.load import LoadedEncoder
    from medssl.inference.segment import Segmenter
    from medssl.probing.linear import LinearProbe

Guess = Callable[[Volume, NDArray[np.bool_]], Steps[NDArray[np.integer]]]
"""Scan and wanted voxels (*S) -> mask (*S), right at least at the wanted voxels."""

_FEW = 100_000  # voxels that are cheaper to classify one by one than as a whole volume


@dataclass(frozen=True)
class Score:
    """How good one model is on the held-out labels.

    Args:
        mean: Dice over the classes but the background, mean over the scans.
        classes: Dice per mask value, counts of all scans added up.
        scans: mean Dice of each scan by name.
        right: where the model is right, over the held-out voxels of all scans; None where masks are dense.
    """

    mean: float
    classes: Mapping[int, float]
    scans: Mapping[str, float]
    right: NDArray[np.bool_] | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "mean_dice": round(self.mean, 4),
            "dice": {str(value): round(dice, 4) for value, dice in self.classes.items()},
            "scans": {name: round(dice, 4) for name, dice in self.scans.items()},
        }

    def clearly_beats(self, other: Score) -> bool:
        """A higher Dice, and with a few scribbled voxels more than chance.

        Of the voxels on which one model alone is right, ours must be the majority by more than the standard
        deviation of a fair coin: after brief training on a few strokes Dice alone is a draw of lots.

        Reference: McNemar, Psychometrika 12 (1947): the sampling error of correlated proportions.
        """
        if self.mean <= other.mean or self.right is None or other.right is None:
            return self.mean > other.mean
        gained = int((self.right & ~other.right).sum())
        lost = int((other.right & ~self.right).sum())
        return gained - lost > math.sqrt(gained + lost)


def judge(cohort: Cohort, guess: Guess, phase: str) -> Steps[Score]:
    """Dice of a model on every judged scan, on the scan's own grid.

    Args:
        cohort: held-out labels.
        guess: the model.
        phase: what `Progress` calls it.
    """
    total = Overlap(cohort.values)
    scans: dict[str, float] = {}
    right: list[NDArray[np.bool_]] = []
    for row, volume, target in cohort.judged():
        wanted = target != UNLABELLED
        found = yield from guess(volume, wanted)
        own = Overlap(cohort.values)
        for overlap in (own, total):
            overlap.add(found, target, wanted)
        if cohort.background is None:  # scribbles: few, and every one counts
            right.append(found[wanted] == target[wanted])
        dice = mean_dice(own.dice(), cohort.background)
        if np.isfinite(dice):  # a scan with background alone says nothing about the classes
            scans[row.name or row.image.name] = dice
        yield Progress(len(scans), None, phase)
    mean = float(np.mean(list(scans.values()))) if scans else 0.0
    return Score(mean, total.dice(), scans, np.concatenate(right) if right else None)


def fit_probe(cohort: Cohort, encoder: LoadedEncoder, workspace: Workspace) -> Steps[LinearProbe]:
    """The linear probe on the training labels, some voxels per class and scan."""
    from medssl.probing.linear import LinearProbe
    from medssl.probing.samples import Scan

    rng = np.random.default_rng(cohort.config.seed)
    samples, labels, places = [], [], []
    for volume, mask in cohort.learned():
        embedding = yield from workspace.features_steps(volume, encoder)
        chosen = np.concatenate(
            [_some(mask, value, cohort.config.probe_voxels, rng) for value in cohort.values]
        )
        index = np.unravel_index(chosen, mask.shape)
        samples.append(Scan(volume, embedding.features).sample(*index))
        labels.append(mask[index])
        places.append(index)
    return LinearProbe().fit_samples(np.concatenate(samples), np.concatenate(labels), places)


def probe_guess(probe: LinearProbe, encoder: LoadedEncoder, workspace: Workspace) -> Guess:
    """The probe as a model to judge."""
    from medssl.probing.samples import Scan

    def guess(volume: Volume, wanted: NDArray[np.bool_]) -> Steps[NDArray[np.integer]]:
        embedding = yield from workspace.features_steps(volume, encoder)
        scan = Scan(volume, embedding.features)
        if wanted.sum() > _FEW:
            return probe.predict(scan).labels
        index = np.nonzero(wanted)
        found = np.zeros(wanted.shape, np.int16)
        found[index] = np.asarray(probe.classes)[probe.predict_samples(scan.sample(*index)).argmax(1)]
        return found

    return guess


def network_guess(segmenter: Segmenter) -> Guess:
    """The network as a model to judge; only windows that hold wanted voxels are computed."""
    from medssl.inference.segment import segment_steps

    def guess(volume: Volume, wanted: NDArray[np.bool_]) -> Steps[NDArray[np.integer]]:
        mask = yield from segment_steps(volume, segmenter, wanted=wanted)
        labels: NDArray[np.integer] = mask.array[0]
        return labels

    return guess


def _some(mask: Mask, value: int, most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    hits = np.flatnonzero(mask == value)
    return rng.choice(hits, most, replace=False) if len(hits) > most else hits
