"""Training on the cohort, judged on held-out patches while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medssl.commands.finetune.cohort import Cohort
from medssl.commands.finetune.fitting import fit_task, new_encoder
from medssl.commands.finetune.start import Start
from medssl.evaluation.metrics import Overlap, mean_dice
from medssl.jobs.progress import Progress, Steps

if TYPE_CHECKING:
    from medssl.data.patches import PatchLoader
    from medssl.probing.linear import LinearProbe
    from medssl.tasks.segmentation import SegmentationTask
    from medssl.training.loop import FitResult

_CROP = {2: 256, 3: 96}
_LOOKS = 6
"""Held-out patches that early stopping looks at; half of it in brief runs."""


def build_task(start: Start, cohort: Cohort, probe: LinearProbe | None) -> SegmentationTask:
    """The network to train: a copy of the loaded encoder, or a new one, with the decoder of the weights, or
    a new one.

    With a probe, training begins where the probe ended.
    """
    import torch

    from medssl.nets.segmentation import SegmentationNetwork
    from medssl.tasks.segmentation import SegmentationTask
    from medssl.training.pretrained_decoder import take_decoder

    encoder, loaded = new_encoder(start, cohort.spatial_dims), start.loaded
    settings = start.config.segmentation
    network = SegmentationNetwork(
        encoder,
        len(cohort.values),
        settings.decoder_channels,
        settings.supervised_levels,
        has_linear=probe is not None,
        decoder=brought_decoder(start),
    )
    if brought_decoder(start) and network.backbone.decoder is not None:
        take_decoder(network.backbone.decoder, start.config.init)
    if probe is not None and loaded is not None and network.linear is not None:
        weight, bias = (torch.from_numpy(values) for values in probe.folded())
        network.linear.start_from(loaded.features, weight, bias)
    return SegmentationTask(
        network,
        settings,
        frozen_steps=start.frozen_steps,
        freeze_statistics=loaded is not None,
    )


def brought_decoder(start: Start) -> Mapping[str, Any] | None:
    """Config of the pre-trained decoder that training goes on with; None where it is new."""
    if start.loaded is None or not start.config.segmentation.pretrained_decoder:
        return None
    decoder: Mapping[str, Any] | None = start.loaded.metadata.get("decoder")
    return decoder


def train(start: Start, cohort: Cohort, task: SegmentationTask) -> Steps[tuple[FitResult, int]]:
    """Train until the steps are done or held-out patches get no better; best weights are put back."""
    from medssl.data.patches import PatchLoader

    config = start.config
    edge = config.segmentation.crop or _CROP[cohort.spatial_dims]
    crop = patch_size(edge, [volume.grid.shape for volume in cohort.train], task.network.multiple)
    loader = PatchLoader(
        cohort.train,
        cohort.values,
        crop,
        config.loop().batch_size,
        seed=config.seed,
        foreground=config.segmentation.foreground,
    )
    if brought_decoder(start):
        yield Progress(
            0, None, "starting", message=f"going on with the decoder of {config.init}", notice=True
        )
    looks = PatchLoader(cohort.held, cohort.values, crop, 1, seed=config.seed + 1, foreground=1.0)
    return (yield from fit_task(start, task, loader, lambda: _patch_dice(task, looks, cohort), "Dice"))


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


def patch_size(edge: int, shapes: Sequence[tuple[int, ...]], multiple: Sequence[int]) -> tuple[int, ...]:
    """Voxels per axis of a patch: ``edge``, no longer than the longest volume, a multiple of the stride."""
    longest = [max(shape[axis] for shape in shapes) for axis in range(len(multiple))]
    return tuple(-(-min(edge, n) // m) * m for n, m in zip(longest, multiple, strict=True))
