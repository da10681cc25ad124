"""How much sooner one training reaches what another one reached."""

from __future__ import annotations

from collections.abc import Sequence


def first_step(steps: Sequence[float], scores: Sequence[float], target: float) -> float | None:
    """The first step with a score of at least ``target``; None where there is none.

    Args:
        steps: finished steps at each look, increasing.
        scores: held-out score at each look.
        target: score to reach.
    """
    return next((step for step, score in zip(steps, scores, strict=True) if score >= target), None)


def convergence(
    steps: Sequence[float],
    scores: Sequence[float],
    scratch_steps: Sequence[float],
    scratch_scores: Sequence[float],
) -> dict[str, float]:
    """Speed-up 1 - T_pre / T_scratch of a training over the one from scratch.

    The target is the best held-out score of the training from scratch, first reached there after T_scratch
    steps; T_pre is the first look at which the other training reaches it. Both are multiples of the
    interval between looks. A target that is never reached has no speed-up: "reached" is 0. Neither has one
    that scratch holds before its first step, i.e. a training from scratch that never gets better.

    Args:
        steps: finished steps at each look.
        scores: held-out score at each look.
        scratch_steps: the same from scratch.
        scratch_scores: the same from scratch.

    Returns:
        Metrics "best", "target", "reached" and, where it was reached, "speed_up" and "steps_to_target".

    Reference: Ghesu et al., "Contrastive self-supervised learning from 100 million medical images with
    optional supervision", J. Med. Imaging 9(6), 2022: training 85 % faster; the definition is ours.
    """
    target = max(scratch_scores)
    whole = first_step(scratch_steps, scratch_scores, target)
    reached = first_step(steps, scores, target) if whole else None
    metrics = {"best": max(scores), "target": target, "reached": float(reached is not None)}
    if reached is not None and whole:
        metrics["steps_to_target"] = reached
        metrics["speed_up"] = 1 - reached / whole
    return metrics
