"""One fine-tuning of one cell: an encoder, a share of the labels, a seed, a budget."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from medssl.commands.evaluate.assay import Assay
from medssl.config.evaluate import FineTuningCells
from medssl.config.training import TrainingConfig
from medssl.inference.load import LoadedEncoder
from medssl.jobs.progress import Progress, Steps
from medssl.nets.encoders import restore_encoder
from medssl.store.atomic import atomic_file, write_atomically
from medssl.training.calibration import calibrate_task
from medssl.training.loop import fit
from medssl.training.optim import build_optimizer
from medssl.training.thaw import thawing

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_CALIBRATION = 8
"""Batches over which running statistics are measured before a network is judged."""


@dataclass(frozen=True, eq=False)
class Start:
    """Where a fine-tuning begins.

    Args:
        kind: its name in the tables.
        encoder: the architecture; its weights too, where it is pre-trained.
        signature: checksum of the weights, "" for none.
    """

    kind: str
    encoder: LoadedEncoder
    signature: str

    @property
    def is_pretrained(self) -> bool:
        """Whether the weights count."""
        return self.signature != ""

    def fresh(self, seed: int) -> nn.Module:
        """An encoder to train: a copy of the weights, or the architecture drawn anew."""
        encoder = self.encoder.encoder
        if self.is_pretrained:
            return deepcopy(encoder).cpu().requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return restore_encoder(encoder.config)


@dataclass(frozen=True)
class Trial:
    """A finished fine-tuning.

    Args:
        subjects: training subjects.
        steps: finished steps.
        seconds: time in training, looks left out.
        loss: mean training loss of the last logged steps.
        looks: finished steps at each look.
        scores: held-out score at each look.
    """

    subjects: int
    steps: int
    seconds: float
    loss: float
    looks: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


class TrialStore:
    """Trained networks on disk, so that protocols share them.

    Args:
        folder: made when the first one is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, digest: str, task: nn.Module) -> Trial | None:
        """Put the trained weights into ``task``; None where there are none."""
        try:
            values = json.loads((self.folder / f"{digest}.json").read_text(encoding="utf-8"))
            task.load_state_dict(load_file(self.folder / f"{digest}.safetensors"))
            return Trial(**values)
        except (OSError, ValueError, TypeError, RuntimeError):
            return None  # absent, half written or of an older form: trained again

    def save(self, digest: str, task: nn.Module, trial: Trial) -> None:
        """Keep a trained network; its record is written last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.folder / f"{digest}.safetensors") as stream:
            stream.write(save({k: v.detach().cpu().contiguous() for k, v in task.state_dict().items()}))
        write_atomically(self.folder / f"{digest}.json", json.dumps(asdict(trial)))


def train_steps(
    assay: Assay,
    task: nn.Module,
    *,
    is_pretrained: bool,
    fraction: float,
    seed: int,
    settings: FineTuningCells,
    fabric: Fabric,
    is_watched: bool = False,
) -> Steps[Trial]:
    """Fine-tune in place; the last weights are kept, nothing is chosen on held-out subjects.

    Args:
        assay: table and task.
        task: from ``assay.task``.
        is_pretrained: whether ``settings.encoder_rate`` holds.
        fraction: share of the training subjects.
        seed: of subjects, batches and augmentation.
        settings: budget.
        fabric: device.
        is_watched: judge held-out subjects before the first step and at every interval.

    Raises:
        KeyboardInterrupt: interrupted; the cell is not finished.
    """
    loader, subjects = assay.batches(fraction, seed)
    loop = TrainingConfig(
        steps=settings.steps,
        batch_size=settings.batch_size,
        lr=settings.lr,
        log_every=min(25, settings.steps),
    )
    rate = settings.encoder_rate if is_pretrained else 1.0
    optimizer = build_optimizer(
        task,
        loop,
        lambda name: rate if ".encoder." in name else 1.0,
        apart=lambda name: ".encoder." in name,
    )
    thaw = thawing(task, optimizer, settings.thaw_share * settings.steps)

    def measure() -> None:
        was_training = task.training
        calibrate_task(task, islice(loader.batches(), _CALIBRATION), seed)
        task.train(was_training)

    watch = _Watch(assay, task, settings, measure if is_watched else None)

    def after_step(step: int) -> bool:
        if thaw is not None:
            thaw(step)
        return watch(step)

    steps = fit(task, loader, loop, fabric=fabric, seed=seed, optimizer=optimizer, after_step=after_step)
    watch.begin()
    fitted = yield from _renamed(steps)
    if fitted.stopped == "signal":
        raise KeyboardInterrupt
    measure()
    return Trial(
        subjects=subjects,
        steps=fitted.step,
        seconds=round(watch.seconds, 2),
        loss=fitted.metrics.get("loss", float("nan")),
        looks=watch.looks,
        scores=watch.scores,
    )


class _Watch:
    """The ``after_step`` of a trial: looks at held-out subjects, and ends training when the time is up."""

    def __init__(
        self, assay: Assay, task: nn.Module, settings: FineTuningCells, measure: Callable[[], None] | None
    ) -> None:
        self._assay = assay
        self._task = task
        self._settings = settings
        self._measure = measure
        self._begun = 0.0
        self.looks: list[float] = []
        self.scores: list[float] = []
        self.seconds = 0.0

    def begin(self) -> None:
        if self._measure is not None:
            self._look(0)
        self._begun = time.perf_counter()

    def __call__(self, step: int) -> bool:
        self.seconds += time.perf_counter() - self._begun
        is_over = self._settings.seconds is not None and self.seconds >= self._settings.seconds
        is_last = is_over or step == self._settings.steps
        if self._measure is not None and (is_last or step % self._settings.look_every == 0):
            self._look(step)
        self._begun = time.perf_counter()
        return is_over

    def _look(self, step: int) -> None:
        if self._measure is not None:
            self._measure()
        score, _ = self._assay.score(self._task, self._settings.look_subjects or self._assay.look_subjects)
        self.looks.append(float(step))
        self.scores.append(score)


def _renamed(steps: Steps[Any]) -> Steps[Any]:
    """Training under a phase of its own, so that its bar is not taken for that of the cells."""
    try:
        while True:
            try:
                progress = next(steps)
            except StopIteration as stop:
                return stop.value
            metrics: Mapping[str, float] = progress.metrics
            yield Progress(progress.step, progress.total, "fine-tuning", metrics)
    finally:
        steps.close()
