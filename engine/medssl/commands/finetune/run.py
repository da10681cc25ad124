"""The road of a fine-tuning: read, probe, train, compare, export what is better."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.commands.finetune.cohort import Cohort, read_cohort
from medssl.commands.finetune.export import export_network, export_probe
from medssl.commands.finetune.judge import Score, fit_probe, judge, network_guess, probe_guess
from medssl.commands.finetune.train import build_task, train
from medssl.commands.workspace import Workspace
from medssl.config.finetune import FinetuneConfig
from medssl.jobs.progress import Progress, Steps
from medssl.store.atomic import write_atomically
from medssl.store.project import Project
from medssl.store.runs import Run
from medssl.volume.working_grid import SPACING_RANGE

if TYPE_CHECKING:
    from medssl.training.loop import FitResult


@dataclass(frozen=True)
class FinetuneResult:
    """How a fine-tuning ended.

    Args:
        run: run folder.
        use: "network" or "probe": what was exported, because it is better on the held-out labels; "" after
            a signal, when only the checkpoint was saved.
        message: the comparison in a sentence.
        held_out: what the models were judged on.
        scores: `Score` as plain values by model.
        step: finished steps.
        best_step: step of the weights that were kept.
        stopped: "" when all steps are done, else "early", "stop" or "signal".
        seconds: time of the whole command.
        weights: exported file.
    """

    run: Path
    use: str
    message: str
    held_out: str
    scores: Mapping[str, Any]
    step: int
    best_step: int
    stopped: str
    seconds: float
    weights: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "run": str(self.run),
            "use": self.use,
            "message": self.message,
            "held_out": self.held_out,
            "scores": dict(self.scores),
            "step": self.step,
            "best_step": self.best_step,
            "stopped": self.stopped,
            "seconds": round(self.seconds, 1),
            "weights": None if self.weights is None else str(self.weights),
        }

    def to_text(self) -> str:
        """For the terminal."""
        if self.weights is None:
            return f"stopped after step {self.step}; go on with --resume {self.run}"
        return f"{self.message}\nheld out: {self.held_out}\nweights: {self.weights} ({self.use})"


def run(config: FinetuneConfig, workspace: Workspace | None = None) -> Steps[FinetuneResult]:
    """Fine-tune, compare with the linear probe on held-out labels, export the better one.

    Args:
        config: table, weights, mode; with ``resume`` the run goes on from its last checkpoint.
        workspace: keeps weights and features warm.
    """
    begin = time.perf_counter()
    yield Progress(0, None, "starting", message=f"reading {config.data}")
    project = None if config.project is None else Project.open(config.project)
    warm = workspace or Workspace(config.device, project=project)
    loaded = None if config.init == "none" else warm.encoder(config.init)
    spacing_range = SPACING_RANGE if loaded is None else loaded.spacing_range
    folder = _run_folder(config)
    for left in folder.folder.glob("scratch-*"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix="scratch-", dir=folder.folder, ignore_cleanup_errors=True  # Windows keeps mapped files
    ) as scratch:  # fmt: skip
        dims = None if loaded is None else loaded.spatial_dims
        cohort = yield from read_cohort(config, spacing_range, dims, Path(scratch))
        unseen = [name for value, name in config.classes.items() if value not in cohort.values]
        if unseen:
            yield Progress(0, None, "reading", message=f"no label yet, left out: {', '.join(unseen)}")
        scores: dict[str, Score] = {}
        probe = None
        if loaded is not None:
            probe = yield from fit_probe(cohort, loaded, warm)
            scores["probe"] = yield from judge(cohort, probe_guess(probe, loaded, warm), "judging the probe")
            said = f"linear probe: Dice {scores['probe'].mean:.3f} on {cohort.held_out}"
            yield Progress(0, None, "judging the probe", {"probe_dice": scores["probe"].mean}, said)
        fitted: FitResult | None = None
        best_step = 0
        if config.mode != "probe":
            task = build_task(config, cohort, loaded, probe)
            fitted, best_step = yield from train(config, cohort, task, folder)
            if fitted.stopped == "signal":
                return _result(folder, cohort, scores, fitted, best_step=best_step, use="", begin=begin)
            export_network(folder.folder / "exported" / "network.safetensors", cohort, task, loaded)
            scores["network"] = yield from _judge_network(folder, cohort, warm)
    use = _better(scores)
    if use == "network":
        (folder.folder / "exported" / "network.safetensors").replace(folder.exported)
    elif probe is not None and loaded is not None:
        export_probe(folder.exported, cohort, probe, loaded)
    result = _result(folder, cohort, scores, fitted, best_step=best_step, use=use, begin=begin)
    write_atomically(folder.folder / "result.json", json.dumps(result.to_json(), indent=1) + "\n")
    yield Progress(result.step, result.step, "done", message=result.message)
    return result


def _run_folder(config: FinetuneConfig) -> Run:
    if config.resume is not None:
        run = Run.open(config.resume)
        run.clear_stop()
        return run
    resolved = config.model_copy(update={"data": config.data.resolve()})
    return Run.create(config.out, resolved, device=config.device, seed=config.seed, command="finetune")


def _judge_network(folder: Run, cohort: Cohort, warm: Workspace) -> Steps[Score]:
    from medssl.inference.segment import load_segmenter
    from medssl.store.weights import resolve

    record = resolve(folder.folder / "exported" / "network.safetensors")
    segmenter = load_segmenter(record, warm.device)
    return (yield from judge(cohort, network_guess(segmenter), "judging the network"))


def _better(scores: Mapping[str, Score]) -> str:
    """The model to use; the probe where the network does not beat it."""
    if "probe" not in scores:
        return "network"
    if "network" not in scores or scores["network"].mean <= scores["probe"].mean:
        return "probe"
    return "network"


def _sentence(scores: Mapping[str, Score], use: str) -> str:
    dice = {name: f"{score.mean:.3f}" for name, score in scores.items()}
    if len(dice) < 2:
        return "; ".join(f"{name}: Dice {value} on held-out labels" for name, value in dice.items())
    network, probe = f"the network (Dice {dice['network']})", f"the linear probe ({dice['probe']})"
    if use == "network":
        return f"{network} beats {probe} on held-out labels"
    return (
        f"{network} does not beat {probe} on held-out labels: the probe stays; "
        "label more scans or train longer"
    )


def _result(
    folder: Run,
    cohort: Cohort,
    scores: Mapping[str, Score],
    fitted: FitResult | None,
    *,
    best_step: int,
    use: str,
    begin: float,
) -> FinetuneResult:
    return FinetuneResult(
        run=folder.folder,
        use=use,
        message=_sentence(scores, use),
        held_out=cohort.held_out,
        scores={name: score.to_json() for name, score in scores.items()},
        step=0 if fitted is None else fitted.step,
        best_step=best_step,
        stopped="" if fitted is None else fitted.stopped,
        seconds=time.perf_counter() - begin,
        weights=folder.exported if use else None,
    )
