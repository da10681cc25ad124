"""Training on the cohort, judged on held-out patches while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medssl.commands.finetune.cohort import Cohort
from medssl.config.finetune import FinetuneConfig
from medssl.evaluation.metrics import Overlap, mean_dice
from medssl.jobs.progress import Progress, Steps
from medssl.store.runs import Run

if TYPE_CHECKING:
    from medssl.data.patches import PatchLoader
    from medssl.inference.load import LoadedEncoder
    from medssl.probing.linear import LinearProbe
    from medssl.tasks.segmentation import SegmentationTask
    from medssl.training.early_stop import EarlyStop
    from medssl.training.loop import FitResult

_CROP = {2: 256, 3: 96}
_LOOKS = 6
"""Held-out patches that early stopping looks at; half of it in brief runs."""


def build_task(
    config: FinetuneConfig, cohort: Cohort, loaded: LoadedEncoder | None, probe: LinearProbe | None
) -> SegmentationTask:
    """The network to train: a copy of the loaded encoder, or a new one, with a new decoder.

    With a probe, training begins where the probe ended.
    """
    from copy import deepcopy

    import torch

    from medssl.nets.encoders import build_encoder
    from medssl.nets.segmentation import SegmentationNetwork
    from medssl.tasks.segmentation import SegmentationTask

    torch.manual_seed(config.seed)
    if loaded is None:
        encoder = build_encoder(config.encoder, cohort.spatial_dims)
    else:
        encoder = deepcopy(loaded.encoder).cpu().requires_grad_(True)
    settings = config.segmentation
    network = SegmentationNetwork(
        encoder,
        len(cohort.values),
        settings.decoder_channels,
        settings.supervised_levels,
        has_linear=probe is not None,
    )
    if probe is not None and loaded is not None and network.linear is not None:
        weight, bias = (torch.from_numpy(values) for values in probe.folded())
        network.linear.start_from(loaded.features, weight, bias)
    return SegmentationTask(
        network,
        settings,
        frozen_steps=config.loop().steps // 2 if config.mode == "frozen" and loaded is not None else 0,
        freeze_statistics=loaded is not None,
    )


def train(
    config: FinetuneConfig, cohort: Cohort, task: SegmentationTask, folder: Run
) -> Steps[tuple[FitResult, int]]:
    """Train until the steps are done or held-out patches get no better; best weights are put back."""
    from medssl.data.patches import PatchLoader
    from medssl.tasks.segmentation import layer_scale
    from medssl.training.early_stop import EarlyStop
    from medssl.training.fabric import build_fabric
    from medssl.training.loop import fit
    from medssl.training.optim import build_optimizer

    loop, edge = config.loop(), config.segmentation.crop or _CROP[cohort.spatial_dims]
    yield Progress(0, loop.steps, "starting", message="loading Lightning Fabric")
    fabric = build_fabric(config.device, loop.precision)
    crop = _crop(edge, [volume.grid.shape for volume in cohort.train], task.network.multiple)
    loader = PatchLoader(
        cohort.train,
        cohort.values,
        crop,
        loop.batch_size,
        seed=config.seed,
        foreground=config.segmentation.foreground,
    )
    looks = PatchLoader(cohort.held, cohort.values, crop, 1, seed=config.seed + 1, foreground=1.0)
    scales = {} if config.init == "none" else layer_scale(
        task.network.encoder.stage_names, config.encoder_rate, config.layer_decay
    )  # fmt: skip
    optimizer = build_optimizer(
        task, loop, lambda name: next((s for prefix, s in scales.items() if name.startswith(prefix)), 1.0)
    )
    early = EarlyStop(
        folder.folder,
        task.network,
        lambda: _patch_dice(task, looks, cohort),
        every=min(config.interval, loop.steps),
        patience=config.patience,
    )
    if config.resume is None:
        early.judge(0)  # the probe it starts from may be the best there is
    steps = fit(
        task, loader, loop, fabric=fabric, run=folder, seed=config.seed, optimizer=optimizer, after_step=early
    )
    fitted = yield from _with_scores(steps, early, folder)
    if fitted.stopped != "signal":
        if fitted.step not in early.history and fitted.stopped != "early":
            early.judge(fitted.step)
        early.restore_best()
        task.to("cpu")
    return fitted, early.best_step


def _with_scores(steps: Steps[FitResult], early: EarlyStop, folder: Run) -> Steps[FitResult]:
    """The progress of training with the held-out Dice beside it, where it was just measured."""
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
                dice = early.history[progress.step]
                progress = Progress(
                    progress.step,
                    progress.total,
                    progress.phase,
                    {**progress.metrics, "held_out_dice": dice},
                    f"step {progress.step}: Dice {dice:.3f} on held-out patches",
                )
                folder.log(progress)
            yield progress
    finally:
        steps.close()


def _patch_dice(task: SegmentationTask, looks: PatchLoader, cohort: Cohort) -> float:
    """Mean Dice over fixed held-out patches, counts added up: cheap, and good enough to rank checkpoints."""
    device = next(task.parameters()).device
    overlap = Overlap(range(len(cohort.values)))
    for number in range(_LOOKS // 2 if cohort.config.brief else _LOOKS):
        batch = looks.batch(number)
        if batch.label is None:
            raise ValueError("patches come with labels")
        found = task.predict(batch.image.to(device)).argmax(dim=1, keepdim=True).cpu().numpy()
        label = batch.label.numpy()
        overlap.add(found, label, label >= 0)
    background = None if cohort.background is None else cohort.values.index(cohort.background)
    return mean_dice(overlap.dice(), background)


def _crop(edge: int, shapes: Sequence[tuple[int, ...]], multiple: Sequence[int]) -> tuple[int, ...]:
    """Patch size: ``edge``, no axis longer than the longest volume, a multiple of the stride."""
    longest = [max(shape[axis] for shape in shapes) for axis in range(len(multiple))]
    return tuple(-(-min(edge, n) // m) * m for n, m in zip(longest, multiple, strict=True))
