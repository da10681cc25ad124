"""How much a fine-tuned network loses on scans that were changed."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from medssl.commands.evaluate.assay import Assay
from medssl.config.evaluate import EvaluateConfig, Family
from medssl.evaluation.perturbations import area, grades, perturb


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
