"""Detection: train on patches, judge on whole held-out scans, export."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medssl.commands.finetune.boxed_cohort import BoxedCohort, read_boxed_cohort
from medssl.commands.finetune.fitting import fit_task, new_encoder
from medssl.commands.finetune.start import Outcome, Start
from medssl.commands.finetune.train import patch_size
from medssl.evaluation.detection_metrics import box_iou, detection_scores, match
from medssl.jobs.progress import Progress, Steps
from medssl.store.weights import inherited
from medssl.volume.regions import Box

if TYPE_CHECKING:
    from pathlib import Path

    from medssl.data.box_patches import BoxPatchLoader
    from medssl.tasks.detection import DetectionTask

_CROP = {2: 256, 3: 64}
_LOOKS = 6
"""Held-out patches that early stopping looks at; half of it in brief runs."""


def road(start: Start) -> Steps[Outcome]:
    """Fine-tune a detector and say how well it finds the held-out boxes."""
    from medssl.data.box_patches import BoxPatchLoader

    config = start.config
    cohort = yield from read_boxed_cohort(start)
    task = _build_task(start, cohort)
    edge = config.detection.crop or _CROP[cohort.spatial_dims]
    crop = patch_size(edge, [volume.grid.shape for volume in cohort.train], task.network.multiple)
    loader = BoxPatchLoader(
        cohort.train,
        crop,
        config.loop().batch_size,
        seed=config.seed,
        foreground=config.detection.foreground,
    )
    looks = BoxPatchLoader(cohort.held, crop, 1, seed=config.seed + 1, foreground=1.0)
    count = _LOOKS // 2 if config.brief else _LOOKS
    fitted, best_step = yield from fit_task(
        start, task, loader, lambda: _patch_precision(task, looks, cohort.names, count), "mAP"
    )
    if fitted.stopped == "signal":
        return Outcome("", "", cohort.held_out, {}, fitted, best_step)
    _export(start.folder.exported, start, cohort, task)
    scores = yield from _judge(start, cohort)
    return Outcome(
        "network", _sentence(scores, cohort.held_out), cohort.held_out, {"network": scores}, fitted, best_step
    )


def _build_task(start: Start, cohort: BoxedCohort) -> DetectionTask:
    from medssl.nets.detection import DetectionNetwork
    from medssl.tasks.detection import DetectionTask

    settings, is_probe = start.config.detection, start.config.mode == "probe"
    encoder = new_encoder(start, cohort.spatial_dims)
    network = DetectionNetwork(
        encoder.requires_grad_(not is_probe),
        len(cohort.names),
        channels=settings.channels,
        depth=settings.depth,
        levels=settings.levels,
        is_linear=is_probe,
    )
    return DetectionTask(
        network, settings, frozen_steps=start.frozen_steps, freeze_statistics=start.loaded is not None
    )


def _patch_precision(task: DetectionTask, looks: BoxPatchLoader, names: tuple[str, ...], count: int) -> float:
    """Mean average precision at IoU 0.1 over fixed held-out patches: enough to rank checkpoints."""
    import torch

    from medssl.data.box_patches import IGNORED
    from medssl.inference.detect import to_boxes
    from medssl.nets.boxes import Found
    from medssl.volume import Geometry

    device = next(task.parameters()).device
    grid = Geometry.from_arrays(looks.crop)
    scans: list[tuple[list[Box], list[Box]]] = []
    for number in range(count):
        batch = looks.batch(number)
        if batch.targets is None:
            raise ValueError("patches come with boxes")
        found = task.found(batch.image.to(device))[0].cpu()
        edges, classes = batch.targets["boxes"][0], batch.targets["classes"][0]
        true, cut = (
            to_boxes(
                Found(edges[part], torch.ones(int(part.sum())), classes[part].clamp(min=0)), names, grid, grid
            )
            for part in (classes >= 0, classes == IGNORED)
        )
        scans.append((_without(to_boxes(found, names, grid, grid), cut), true))
    single = [match(scans, 0.1, name).average_precision() for name in names]
    present = [value for value in single if math.isfinite(value)]
    return sum(present) / len(present) if present else 0.0


def _without(found: list[Box], cut: list[Box]) -> list[Box]:
    """Boxes that touch no box which the patch cuts off: those are neither right nor wrong."""
    if not cut:
        return found
    keep = (box_iou(found, cut) == 0).all(axis=1)
    return [box for box, kept in zip(found, keep, strict=True) if kept]


def _judge(start: Start, cohort: BoxedCohort) -> Steps[dict[str, Any]]:
    """Figures over the judged scans, on their own grids, with the exported file."""
    from medssl.inference.detect import detect_steps, load_detector
    from medssl.store.weights import resolve

    detector = load_detector(resolve(start.folder.exported), start.warm.device)
    scans: list[tuple[list[Box], list[Box]]] = []
    for _, volume, true in cohort.judged():
        found = yield from detect_steps(volume, detector)
        scans.append((found, true))
        yield Progress(len(scans), None, "judging the network")
    figures = {name: round(value, 4) for name, value in detection_scores(scans, cohort.names).items()}
    counts = {"scans": len(scans), "boxes": sum(len(true) for _, true in scans)}
    return {**{name: value for name, value in figures.items() if math.isfinite(value)}, **counts}


def _sentence(scores: Mapping[str, Any], held_out: str) -> str:
    if "sensitivity_at_1" not in scores:
        return f"no true box on the judged scans ({held_out}): nothing to count"
    return (
        f"finds {100 * scores['sensitivity_at_1']:.0f} % of {scores['boxes']} boxes at 1 false positive per "
        f"scan, mAP {scores['map_10']:.3f} at IoU 0.1 and {scores['map_50']:.3f} at 0.5"
    )


def _export(path: Path, start: Start, cohort: BoxedCohort, task: DetectionTask) -> None:
    from medssl.training.export import export_weights

    network = task.network
    low, high = start.spacing_range
    metadata = {
        "method": "finetune",
        "encoder": {"name": "finetuned", **network.encoder.config},
        "preprocessing": {"spacing_range": [low, high]},
        "modalities": list(cohort.modalities),
        "init": start.config.init,
        "note": start.config.note,
        **({} if start.loaded is None else inherited(start.loaded.metadata)),
        "task": {
            "name": "detection",
            "kind": "network",
            "classes": [{"value": value, "name": name} for value, name in enumerate(cohort.names)],
            "network": dict(network.config),
            "settings": start.config.detection.model_dump(mode="json"),
        },
    }
    dense = start.loaded.features if start.loaded and start.loaded.has_projection else None
    export_weights(path, network.backbone, metadata, dense=dense, modules={"detection": network.detection})
