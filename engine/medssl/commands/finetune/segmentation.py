"""Segmentation: the linear probe, then the network, and whichever is better on the held-out labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medssl.commands.finetune.cohort import Cohort, read_cohort
from medssl.commands.finetune.export import export_network, export_probe
from medssl.commands.finetune.judge import Score, fit_probe, judge, network_guess, probe_guess
from medssl.commands.finetune.start import Outcome, Start
from medssl.commands.finetune.train import build_task, train
from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps

if TYPE_CHECKING:
    from medssl.training.loop import FitResult


def road(start: Start) -> Steps[Outcome]:
    """Fine-tune, compare with the linear probe on held-out labels, export the better one."""
    config, folder, warm, loaded = start.config, start.folder, start.warm, start.loaded
    cohort = yield from read_cohort(config, start.spacing_range, start.dims, start.scratch)
    unseen = [name for value, name in config.classes.items() if value not in cohort.values]
    if unseen:
        yield Progress(
            0, None, "reading", message=f"no label yet, left out: {', '.join(unseen)}", notice=True
        )
    scores: dict[str, Score] = {}
    probe = None
    if loaded is not None and not loaded.has_projection and config.mode == "probe":
        raise InputError(
            f"--mode probe: {config.init} holds no projection to features; import it again with --data "
            "SCANS, or fine-tune with another mode"
        )
    if loaded is not None and loaded.has_projection:
        probe = yield from fit_probe(cohort, loaded, warm)
        scores["probe"] = yield from judge(cohort, probe_guess(probe, loaded, warm), "judging the probe")
        said = f"linear probe: Dice {scores['probe'].mean:.3f} on {cohort.held_out}"
        yield Progress(0, None, "judging the probe", {"probe_dice": scores["probe"].mean}, said)
    fitted: FitResult | None = None
    best_step = 0
    network = folder.folder / "exported" / "network.safetensors"
    if config.mode != "probe":
        task = build_task(start, cohort, probe)
        fitted, best_step = yield from train(start, cohort, task)
        if fitted.stopped == "signal":
            return _outcome(cohort, scores, fitted, best_step, use="")
        export_network(network, cohort, task, loaded)
        scores["network"] = yield from _judge_network(start, cohort)
    use = better(scores)
    if use == "network":
        network.replace(folder.exported)
    elif probe is not None and loaded is not None:
        export_probe(folder.exported, cohort, probe, loaded)
    return _outcome(cohort, scores, fitted, best_step, use=use)


def _judge_network(start: Start, cohort: Cohort) -> Steps[Score]:
    from medssl.inference.segment import load_segmenter
    from medssl.store.weights import resolve

    record = resolve(start.folder.folder / "exported" / "network.safetensors")
    segmenter = load_segmenter(record, start.warm.device)
    return (yield from judge(cohort, network_guess(segmenter), "judging the network"))


def better(scores: Mapping[str, Score]) -> str:
    """The model to use; the probe where the network does not beat it clearly."""
    if "probe" not in scores:
        return "network"
    if "network" not in scores or not scores["network"].clearly_beats(scores["probe"]):
        return "probe"
    return "network"


def sentence(scores: Mapping[str, Score], use: str) -> str:
    """The comparison in words."""
    dice = {name: f"{score.mean:.3f}" for name, score in scores.items()}
    if len(dice) < 2:
        return "; ".join(f"{name}: Dice {value} on held-out labels" for name, value in dice.items())
    network, probe = f"the network (Dice {dice['network']})", f"the linear probe ({dice['probe']})"
    if use == "network":
        return f"{network} beats {probe} on held-out labels"
    clearly = "clearly " if scores["network"].mean > scores["probe"].mean else ""
    return (
        f"{network} does not {clearly}beat {probe} on held-out labels: the probe stays; "
        "label more scans or train longer"
    )


def _outcome(
    cohort: Cohort, scores: Mapping[str, Score], fitted: FitResult | None, best_step: int, *, use: str
) -> Outcome:
    plain = {name: score.to_json() for name, score in scores.items()}
    return Outcome(use, sentence(scores, use), cohort.held_out, plain, fitted, best_step)
