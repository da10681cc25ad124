"""The training of any task: optimiser, judging while it runs, the best weights at the end."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from medssl.commands.finetune.hybrid import with_unlabelled
from medssl.commands.finetune.start import Start
from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps
from medssl.store.runs import Run

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from medssl.config.finetune import FinetuneConfig
    from medssl.nets.encoders import AnyEncoder
    from medssl.training.early_stop import EarlyStop
    from medssl.training.loop import Batches, FitResult
    from medssl.training.thaw import Thaw

_CALIBRATION = 16
"""Patches or images over which running statistics are measured; a quarter of it in brief runs."""


def new_encoder(start: Start, spatial_dims: int) -> AnyEncoder:
    """A copy of the loaded encoder that may learn, or a new one; the seed of what is built next is set.

    Raises:
        InputError: the encoder is unknown.
    """
    from copy import deepcopy

    import torch

    from medssl.nets.encoders import build_encoder

    torch.manual_seed(start.config.seed)
    if start.loaded is not None:
        return deepcopy(start.loaded.encoder).cpu().requires_grad_(True)
    try:
        return build_encoder(start.config.encoder, spatial_dims)
    except ValueError as error:
        raise InputError(f"--encoder: {error}") from error


def fit_task(
    start: Start, task: Any, loader: Batches, score: Callable[[], float], figure: str
) -> Steps[tuple[FitResult, int]]:
    """Train until the steps are done or the score gets no better; the best weights are put back.

    Args:
        start: settings, run folder.
        task: a `medssl.protocols.Task` with ``network``.
        loader: training batches by number.
        score: of the network as it is, on held-out patches or images; higher is better.
        figure: what the score is called.

    Returns:
        How training ended, and the step of the best weights.
    """
    from medssl.training.early_stop import EarlyStop
    from medssl.training.fabric import build_fabric
    from medssl.training.first_step import blame_settings, blaming
    from medssl.training.initialise import describe_start
    from medssl.training.loop import fit

    config, folder, loop = start.config, start.folder, start.config.loop()
    is_new = not folder.checkpoints()  # a resumed run may have been killed before its first one
    if is_new and start.loaded is not None:
        said = describe_start(task.network, config.init)
        matched = Progress(0, loop.steps, "starting", message=said, notice=True)
        folder.log(matched)
        yield matched
    labelled = task, loader
    task, loader = yield from with_unlabelled(start, task, loader)
    yield Progress(0, loop.steps, "starting", message="loading Lightning Fabric")
    fabric = build_fabric(config.device, loop.precision)
    optimizer = _optimizer(start, task)

    settings = _sizes(config)
    if loop.batch_size == 1 and start.loaded is not None:  # those of a new network are not worth keeping
        if is_new:
            with blaming(settings):
                _measure_norms(start, *labelled)
        labelled[0].fix_statistics = True

    def calibrated() -> float:
        was_training = task.training
        _measure_norms(start, *labelled)
        value = score()
        task.train(was_training)  # not the network: the task knows whose statistics are frozen
        return value

    early = EarlyStop(
        folder.folder,
        task.network,
        calibrated,
        every=min(config.interval, loop.steps),
        patience=config.patience,
        begin=labelled[0].frozen_steps,
    )
    if is_new:
        with blaming(settings):
            early.judge(0)  # the probe it starts from may be the best there is
    thaw = _thaw(start, task, optimizer)

    def after_step(step: int) -> bool:
        if thaw is not None:
            thaw(step)
        return early(step)

    steps = blame_settings(
        fit(
            task,
            loader,
            loop,
            fabric=fabric,
            run=folder,
            seed=config.seed,
            optimizer=optimizer,
            after_step=after_step,
        ),
        settings,
    )
    fitted = yield from _with_scores(steps, early, folder, figure)
    if fitted.stopped != "signal":
        if fitted.step not in early.history and fitted.stopped != "early":
            early.judge(fitted.step)
        early.restore_best()
        task.to("cpu")
    return fitted, early.best_step


def _sizes(config: FinetuneConfig) -> str:
    """The settings that a first step may fail for."""
    crop = "classification.size" if config.task == "classification" else f"{config.task}.crop"
    return f"--batch-size or --{crop}" + (", or --hybrid-crop and --hybrid-settings" if config.hybrid else "")


def _measure_norms(start: Start, task: Any, loader: Batches) -> None:
    """Statistics of the norms that learn, over the first training batches as augmented for training."""
    from medssl.training.calibration import calibrate_task

    patches = _CALIBRATION // 4 if start.config.brief else _CALIBRATION
    first = islice(loader.batches(), -(-patches // start.config.loop().batch_size))
    calibrate_task(task, first, start.config.seed)


def _optimizer(start: Start, task: Any) -> Optimizer:
    from medssl.tasks.segmentation import layer_scale
    from medssl.training.optim import build_optimizer

    config = start.config
    scales = {} if start.loaded is None else layer_scale(
        task.network.encoder.stage_names, config.encoder_rate, config.layer_decay
    )  # fmt: skip
    return build_optimizer(
        task,
        config.loop(),
        lambda name: next((s for prefix, s in scales.items() if _own(name).startswith(prefix)), 1.0),
        apart=lambda name: _own(name).startswith("network.backbone.encoder."),  # its groups may thaw
    )


def _thaw(start: Start, task: Any, optimizer: Optimizer) -> Thaw | None:
    """What lets a frozen encoder learn again; None where it is never frozen, or always."""
    from medssl.training.thaw import thawing

    if start.config.mode == "probe":
        return None
    return thawing(task, optimizer, start.config.thaw_share * start.config.loop().steps)


def _own(name: str) -> str:
    """A parameter's name in the task, which may be a part of the hybrid one."""
    return name.removeprefix("task.")


def _with_scores(steps: Steps[FitResult], early: EarlyStop, folder: Run, figure: str) -> Steps[FitResult]:
    """The progress of training with the held-out score beside it, where it was just measured."""
    told = set(early.history)
    try:
        while True:
            try:
                progress = next(steps)
            except StopIteration as stop:
                fitted: FitResult = stop.value
                return fitted
            if progress.step in early.history and progress.step not in told:
                told.add(progress.step)
                value = early.history[progress.step]
                progress = Progress(
                    progress.step,
                    progress.total,
                    progress.phase,
                    {**progress.metrics, f"held_out_{figure.lower().replace(' ', '_')}": value},
                    f"step {progress.step}: {figure} {value:.3f} held out",
                )
                folder.log(progress)
            yield progress
    finally:
        steps.close()
