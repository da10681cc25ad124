"""How much a fine-tuned network, and search with frozen features, lose on scans that were changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medssl.commands.evaluate.assay import Assay
from medssl.commands.evaluate.hits import retrieval
from medssl.config.evaluate import EvaluateConfig, Family
from medssl.evaluation.cohort import Case, Cohort
from medssl.evaluation.perturbations import area, grades, perturb
from medssl.inference.embed import embed_volume
from medssl.inference.load import LoadedEncoder
from medssl.volume import Volume
from medssl.volume.normalize import Normalizer


def robustness(
    assay: Assay, task: nn.Module, config: EvaluateConfig, seed: int
) -> tuple[dict[str, float], dict[str, list[float]], dict[str, Any]]:
    """Scores on clean and on perturbed held-out scans.

    Args:
        assay: table and task.
        task: the fine-tuned network.
        config: families and grades.
        seed: of the perturbations, the same for every network.

    Returns:
        Metrics: the clean score, "loss in FAMILY" (area under the curve of losses over the strengths) and
        their mean "loss"; series: "strength" and the score by family, strength 0 first; detail: the same
        per subject.
    """
    strengths = grades(config.strengths)
    clean, subjects = assay.score(task)
    metrics: dict[str, float] = {assay.metric: clean}
    series: dict[str, list[float]] = {"strength": [0.0, *strengths]}
    detail: dict[str, Any] = {"clean": dict(subjects)}
    losses = []
    for family in config.families:
        series[family] = [clean]
        for strength in strengths:
            changed = partial(_changed, family=family, strength=strength, seed=seed)
            score, subjects = assay.score(task, perturb=changed)
            series[family].append(score)
            detail[f"{family} {strength:.2g}"] = dict(subjects)
        losses.append(area(strengths, [clean - score for score in series[family][1:]]))
        metrics[f"loss in {family}"] = losses[-1]
    return {**metrics, "loss": float(np.mean(losses))}, series, detail


def _changed(
    image: Tensor, label: Tensor | None, name: str, *, family: Family, strength: float, seed: int
) -> tuple[Tensor, Tensor | None]:
    return perturb(image, label, family=family, strength=strength, seed=seed, name=name)


def search_robustness(
    cohort: Cohort, encoder: LoadedEncoder, config: EvaluateConfig, seed: int
) -> dict[str, float]:
    """Precision of search hits in clean scans, asked from perturbed ones.

    Args:
        cohort: at least two cases.
        encoder: gives the frozen features.
        config: families, grades, queries and hits.
        seed: of queries and perturbations, the same for every encoder.

    Returns:
        "precision" of clean queries, "precision loss in FAMILY" and their mean "precision loss", as
        `robustness`.

    Raises:
        InputError: no cell belongs to a foreground class.
    """
    features = _remembered(lambda case: embed_volume(case.volume, encoder), len(cohort.cases))

    def precision(asked_in: list[Case] | None = None) -> float:
        metrics, _ = retrieval(
            cohort, features, queries=config.queries, top=config.top, seed=seed, asked_in=asked_in
        )
        return metrics["precision"]

    clean, strengths = precision(), grades(config.strengths)
    metrics = {"precision": clean}
    for family in config.families:
        lost = []
        for strength in strengths:
            lost.append(clean - precision([perturbed_case(c, family, strength, seed) for c in cohort.cases]))
        metrics[f"precision loss in {family}"] = area(strengths, lost)
    losses = [value for name, value in metrics.items() if name != "precision"]
    return {**metrics, "precision loss": float(np.mean(losses))}


def perturbed_case(case: Case, family: Family, strength: float, seed: int) -> Case:
    """A case changed in units of its normalisation and put back into its own; then it is read as any scan.

    Args:
        case: scan and label.
        family: see `medssl.evaluation.perturbations.LARGEST`.
        strength: in [0, 1].
        seed: of the perturbation.
    """
    normalizer = Normalizer.fit(case.volume.array, case.volume.modality)
    image = torch.from_numpy(normalizer(case.volume.array))[None]
    label = torch.from_numpy(case.label.astype(np.int64))[None, None]
    changed, moved = perturb(image, label, family=family, strength=strength, seed=seed, name=case.volume.id)
    units, values = zip(*normalizer.knots, strict=True)
    array = np.interp(changed[0].numpy(), values, units).astype(np.float32)
    known = label if moved is None else moved
    return replace(case, volume=case.volume.with_array(array), label=known[0, 0].numpy().astype(np.int16))


def _remembered(features: Callable[[Case], Volume], count: int) -> Callable[[Case], Volume]:
    """``features`` that knows the first ``count`` cases again: those of the index."""
    known: dict[int, tuple[Case, Volume]] = {}

    def remembered(case: Case) -> Volume:
        if id(case) not in known:
            found = features(case)
            if len(known) >= count:
                return found
            known[id(case)] = case, found  # the case too: its id stays its own
        return known[id(case)][1]

    return remembered
