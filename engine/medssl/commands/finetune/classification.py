"""Classification: a linear probe on pooled features, then the network that begins there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medssl.commands.finetune.fitting import fit_task, new_encoder
from medssl.commands.finetune.start import Outcome, Start, same_dims
from medssl.data.held_out import nested_fraction, split_scans
from medssl.data.scan import read_scan, remarks
from medssl.data.table import Row, read_data
from medssl.errors import InputError
from medssl.evaluation.classification_metrics import (
    accuracy,
    auc,
    bootstrap_interval,
    decide,
    macro_auc,
    macro_f1,
)
from medssl.jobs.progress import Progress, Steps
from medssl.store.weights import inherited

if TYPE_CHECKING:
    from torch import Tensor

    from medssl.data.classified import ClassifiedImage
    from medssl.tasks.classification import ClassificationTask
    from medssl.training.loop import FitResult

_LOOKS = 128  # held-out images that early stopping looks at
_AT_ONCE = {2: 32, 3: 2}  # images per forward pass without gradients, by dimensions

Probabilities = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ClassifiedCohort:
    """Training and held-out images of one run.

    Args:
        rows: training rows.
        held_out: a sentence that says what is held out.
        names: of the classes.
        multi_label: whether several classes may be true at once.
        train: training images.
        held: held-out images.
        shape: voxels per axis that all images fit into.
        modalities: of the training images, as the table or the files say.
    """

    rows: tuple[Row, ...]
    held_out: str
    names: tuple[str, ...]
    multi_label: bool
    train: tuple[ClassifiedImage, ...]
    held: tuple[ClassifiedImage, ...]
    shape: tuple[int, ...]
    modalities: tuple[str, ...] = ()


def road(start: Start) -> Steps[Outcome]:
    """Fit a probe on pooled features, train from there, keep what is better on the held-out images."""
    from medssl.data.classified import ClassLoader

    config = start.config
    cohort = yield from _read(start)
    task, is_probed = yield from _build_task(start, cohort)
    scores: dict[str, Any] = {}
    if is_probed:
        scores["probe"] = yield from _judge(start, cohort, task, "judging the probe")
        said = f"linear probe: {_figure(scores['probe'])} on {cohort.held_out}"
        yield Progress(0, None, "judging the probe", {"probe_auc": scores["probe"].get("auc", 0.0)}, said)
    fitted: FitResult | None = None
    best_step, use = 0, "probe"
    if config.mode != "probe":
        loader = ClassLoader(cohort.train, cohort.shape, config.loop().batch_size, seed=config.seed)
        looks = cohort.held[:: max(1, -(-len(cohort.held) // _LOOKS))]
        known = np.stack([image.target for image in looks])
        # images of one kind have none
        has_auc = math.isfinite(macro_auc(known.astype(np.float32), known))

        def look() -> float:
            found = _probabilities(task, looks, cohort.shape)
            return macro_auc(found, known) if has_auc else accuracy(found, known, cohort.multi_label)

        fitted, best_step = yield from fit_task(start, task, loader, look, "AUC" if has_auc else "accuracy")
        if fitted.stopped == "signal":
            return Outcome("", "", cohort.held_out, scores, fitted, best_step)
        if best_step or not is_probed:
            scores["network"] = yield from _judge(start, cohort, task, "judging the network")
            use = "network"
    if use == "network" and is_probed and _mean(scores["network"]) <= _mean(scores["probe"]):
        task, _ = yield from _build_task(start, cohort)  # the probe again
        use = "probe"
    _export(start, cohort, task, use)
    said = "; ".join(f"{name}: {_figure(values)}" for name, values in scores.items())
    return Outcome(use, f"{said}; kept: {use}", cohort.held_out, scores, fitted, best_step)


def _read(start: Start) -> Steps[ClassifiedCohort]:
    from medssl.data.classified import class_names, targets, to_classified

    config, dims = start.config, start.dims
    rows, held_rows, held_out = split_scans(read_data(config.data), config.seed)
    rows = nested_fraction(rows, config.fraction, config.seed)
    names = class_names(rows)
    _check(start, names, held_rows)
    several = any(len(row.classes) > 1 for row in [*rows, *held_rows])
    chosen = config.classification.multi_label
    multi_label = several if chosen is None else chosen
    everyone = [*rows, *held_rows]
    images: list[ClassifiedImage] = []
    notes, modalities = [], set()
    known = targets(everyone, names, multi_label)
    for number, (row, target) in enumerate(zip(everyone, known, strict=True), start=1):
        volume = read_scan(row)
        dims = same_dims(row, volume, dims)
        if number <= len(rows):
            modalities.add(volume.modality)
        notes += [(row.image.name, note) for note in volume.notes]
        images.append(
            to_classified(
                row,
                volume,
                target,
                spacing_range=start.spacing_range,
                size=config.classification.size,
                scratch=start.scratch,
            )
        )
        yield Progress(number, len(everyone), "reading")
    for remark in remarks(notes):
        yield Progress(len(everyone), len(everyone), "reading", message=remark, notice=True)
    _check_both_kinds(start, names, known[: len(rows)])
    largest = tuple(max(image.image.shape[1 + axis] for image in images) for axis in range(dims or 0))
    return ClassifiedCohort(
        tuple(rows),
        held_out,
        names,
        multi_label,
        tuple(images[: len(rows)]),
        tuple(images[len(rows) :]),
        largest,
        tuple(sorted(modalities - {""})),
    )


def _check(start: Start, names: Sequence[str], held_rows: Sequence[Row]) -> None:
    path = start.config.data
    if not names:
        raise InputError(f"{path}: no training image has a class; fill the column class")
    unseen = sorted({name for row in held_rows for name in row.classes} - set(names))
    if unseen:
        share = "" if start.config.fraction == 1 else f" at --fraction {start.config.fraction}"
        raise InputError(
            f"{path}: class {unseen[0]!r} of a held-out image is in no training subject{share}; "
            "add one, or move the subject to split train"
        )


def _check_both_kinds(start: Start, names: Sequence[str], known: NDArray[np.bool_]) -> None:
    for name, column in zip(names, known.T, strict=True):
        if column.all() or not column.any():
            share = "every" if column.all() else "no"
            raise InputError(
                f"{start.config.data}: {share} training image is of class {name!r}; a classifier needs both "
                "kinds: add others"
            )


def _build_task(start: Start, cohort: ClassifiedCohort) -> Steps[tuple[ClassificationTask, bool]]:
    """The task whose linear map is the probe, and whether it is one: a new encoder gets no probe."""
    import torch

    from medssl.nets.classification import ClassificationNetwork
    from medssl.probing.logistic import fit_logistic
    from medssl.tasks.classification import ClassificationTask

    settings, dims = start.config.classification, len(cohort.shape)
    network = ClassificationNetwork(new_encoder(start, dims), len(cohort.names))
    task = ClassificationTask(
        network,
        settings,
        multi_label=cohort.multi_label,
        frozen_steps=start.frozen_steps,
        freeze_statistics=start.loaded is not None,
    )
    if start.loaded is None:
        return task, False
    network.to(start.warm.device)
    parts = []
    for batch in _batches(cohort.train, cohort.shape):
        with torch.no_grad():
            parts.append(network.eval().pooled(batch.to(start.warm.device)).cpu().numpy())
        yield Progress(len(parts), None, "fitting the probe")
    samples = np.concatenate(parts)
    known = np.stack([image.target for image in cohort.train])
    strength = settings.inverse_strength
    if cohort.multi_label:
        models = [fit_logistic(samples, column.astype(np.int64), 2, strength) for column in known.T]
        weight = np.stack([model.weight[1] - model.weight[0] for model in models])
        bias = np.stack([model.bias[1] - model.bias[0] for model in models])
    else:
        models = [fit_logistic(samples, known.argmax(axis=1), len(cohort.names), strength)]
        weight, bias = models[0].weight, models[0].bias
    network.cpu().classification.start_from(
        *(torch.from_numpy(values).float() for values in (models[0].mean, models[0].scale, weight, bias))
    )
    return task, True


def _batches(images: Sequence[ClassifiedImage], shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Image tensors (B, 1, *shape) of all images, in order."""
    from medssl.data.classified import ClassLoader

    step = _AT_ONCE[len(shape)]
    loader = ClassLoader(images, shape, step)
    for low in range(0, len(images), step):
        yield loader.pick(range(low, min(low + step, len(images)))).image


def _probabilities(
    task: ClassificationTask, images: Sequence[ClassifiedImage], shape: tuple[int, ...]
) -> Probabilities:
    device = next(task.parameters()).device
    parts = [task.predict(batch.to(device)).float().cpu().numpy() for batch in _batches(images, shape)]
    result: Probabilities = np.concatenate(parts)
    return result


def _judge(
    start: Start, cohort: ClassifiedCohort, task: ClassificationTask, phase: str
) -> Steps[dict[str, Any]]:
    """Figures over all held-out images."""
    task.eval().to(start.warm.device)
    found = _probabilities(task, cohort.held, cohort.shape)
    task.to("cpu")
    yield Progress(len(found), len(found), phase)
    known = np.stack([image.target for image in cohort.held])
    subjects = [image.row.subject for image in cohort.held]
    low, high = bootstrap_interval(
        found,
        known,
        subjects,
        seed=start.config.seed,
        resamples=start.config.classification.bootstrap,
    )
    chosen = decide(found, cohort.multi_label)
    figures = {
        "auc": macro_auc(found, known),
        "auc_low": low,
        "auc_high": high,
        "accuracy": accuracy(found, known, cohort.multi_label),
        "f1": macro_f1(chosen, known),
    }
    single = {name: auc(found[:, k], known[:, k]) for k, name in enumerate(cohort.names)}
    return {**_finite(figures), "auc_by_class": _finite(single), "images": len(found)}


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items() if math.isfinite(value)}


def _mean(scores: Mapping[str, Any]) -> float:
    return float(scores.get("auc", scores["accuracy"]))


def _figure(scores: Mapping[str, Any]) -> str:
    if "auc" not in scores:
        return f"accuracy {scores['accuracy']:.3f} (one class only is held out: no AUC)"
    return f"AUC {scores['auc']:.3f} ({scores['auc_low']:.3f} to {scores['auc_high']:.3f})"


def _export(start: Start, cohort: ClassifiedCohort, task: ClassificationTask, use: str) -> None:
    from medssl.training.export import export_weights

    network = task.network
    settings = start.config.classification.model_copy(update={"multi_label": cohort.multi_label})
    metadata = {
        "method": "finetune",
        "encoder": {"name": "finetuned", **network.encoder.config},
        "preprocessing": {"spacing_range": list(start.spacing_range)},
        "modalities": list(cohort.modalities),
        "init": start.config.init,
        "note": start.config.note,
        **({} if start.loaded is None else inherited(start.loaded.metadata)),
        "task": {
            "name": "classification",
            "kind": use,
            "classes": [{"value": value, "name": name} for value, name in enumerate(cohort.names)],
            "network": dict(network.config),
            "settings": settings.model_dump(mode="json"),
            "shape": list(cohort.shape),
        },
    }
    dense = start.loaded.features if start.loaded and start.loaded.has_projection else None
    export_weights(
        start.folder.exported,
        network.backbone,
        metadata,
        dense=dense,
        modules={"classification": network.classification},
    )
