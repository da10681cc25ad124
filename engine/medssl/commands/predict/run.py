"""A scan and a fine-tuned model -> a mask, boxes or classes, as the model was trained for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medssl.commands.predict.segmentation import segment
from medssl.commands.workspace import Workspace
from medssl.config.predict import PredictConfig
from medssl.errors import InputError
from medssl.io import write_volume
from medssl.io.outputs import check_dimensions, check_output, check_place
from medssl.io.tables import detections_to_json, write_boxes, write_json
from medssl.jobs.progress import Progress, Steps
from medssl.store.weights import WeightsRecord, resolve
from medssl.volume import Volume


@dataclass(frozen=True)
class PredictResult:
    """A prediction on disk.

    Args:
        path: what was written.
        kind: "network" or "probe": what the model is.
        voxels: voxels per class name, of a mask.
        seconds: time from the loaded scan to the written file.
        task: "segmentation", "detection" or "classification".
        boxes: boxes per class name, of a detection.
        probabilities: by class name, of a classification.
        note: what must be known about the model.
        notes: what was chosen, inferred or repaired on reading the scan.
    """

    path: Path
    kind: str
    voxels: Mapping[str, int]
    seconds: float
    task: str = "segmentation"
    boxes: Mapping[str, int] = field(default_factory=dict)
    probabilities: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "path": str(self.path), "notes": list(self.notes)}

    def to_text(self) -> str:
        """For the terminal."""
        if self.task == "detection":
            said = ", ".join(f"{name}: {count} boxes" for name, count in self.boxes.items()) or "no box"
        elif self.task == "classification":
            said = ", ".join(f"{name}: {value:.3f}" for name, value in self.probabilities.items())
        else:
            said = ", ".join(f"{name}: {count} voxels" for name, count in self.voxels.items())
        notes = (f"note: {note}" for note in (self.note, *self.notes) if note)
        return "\n".join([f"{self.path} ({self.kind}, {self.seconds:.1f} s): {said}", *notes])


Predict = Callable[[PredictConfig, Volume, WeightsRecord, Workspace], Steps[dict[str, Any]]]
"""Computes and writes; gives what `PredictResult` reports about it."""


def run(config: PredictConfig, workspace: Workspace | None = None) -> Steps[PredictResult]:
    """Predict on one scan and write the result in its geometry.

    Args:
        config: model, scan and where to write.
        workspace: keeps scans, encoders and features warm.

    Raises:
        InputError: weights without a task, or a file name that does not fit the task.
    """
    from medssl.inference.segment import task_of

    warm = workspace or Workspace(config.device)
    record = resolve(config.model)
    task = task_of(record)
    predict, suffixes = _TASKS[str(task.get("name", "segmentation"))]
    if suffixes and config.out.suffix.lower() not in suffixes:
        raise InputError(
            f"--out {config.out}: {task['name']} writes {' or '.join(suffixes)}; choose such a name"
        )
    (check_place if suffixes else check_output)(config.out, config.input)
    volume = yield from warm.scan_steps(config.input, config.series, config.frame)
    _check_dims(config, volume, record)
    if not suffixes:
        check_dimensions(config.out, volume)
    begin = time.perf_counter()
    found = yield from predict(config, volume, record, warm)
    seconds = time.perf_counter() - begin
    note = str(record.metadata.get("note", ""))
    notes = (*volume.notes, *_foreign(volume, record))
    found = {"voxels": {}, "note": note, "notes": notes, **found}
    return PredictResult(path=config.out, kind=str(task["kind"]), seconds=seconds, **found)


def _check_dims(config: PredictConfig, volume: Volume, record: WeightsRecord) -> None:
    dims = record.metadata["encoder"]["spatial_dims"]
    if volume.spatial_dims != dims:
        raise InputError(
            f"{config.input}: has {volume.spatial_dims} dimensions, and {config.model} is for {dims}; "
            "choose another model"
        )


def _foreign(volume: Volume, record: WeightsRecord) -> list[str]:
    """A note where one is CT and the other is not.

    Files state no finer kinds (an X-ray as NIfTI reads as MR), and tables spell them in many ways.
    """
    known = [name for name in record.metadata.get("modalities", ()) if name not in ("", "generated")]
    if not known or not volume.modality or (volume.modality == "CT") in [name == "CT" for name in known]:
        return []
    return [f"the scan is {volume.modality}, the model learned from {' and '.join(known)}: do not trust it"]


def _segmentation(
    config: PredictConfig, volume: Volume, record: WeightsRecord, warm: Workspace
) -> Steps[dict[str, Any]]:
    mask = yield from segment(volume, record, warm, overlap=config.overlap, window=config.window)
    write_volume(mask, config.out)
    classes = record.metadata["task"]["classes"]
    return {"voxels": {str(c["name"]): int(np.count_nonzero(mask.array == c["value"])) for c in classes}}


def _detection(
    config: PredictConfig, volume: Volume, record: WeightsRecord, warm: Workspace
) -> Steps[dict[str, Any]]:
    from medssl.inference.detect import detect_steps, load_detector

    detector = load_detector(record, warm.device)
    found = yield from detect_steps(volume, detector, overlap=config.overlap, window=config.window)
    boxes = [box for box in found if box.score is None or box.score >= config.least_score]
    if config.out.suffix.lower() == ".csv":
        write_boxes(boxes, config.out, volume.spatial_dims)
    else:
        note = str(record.metadata.get("note", ""))
        write_json(detections_to_json(boxes, volume.geometry, model=record.name, note=note), config.out)
    counts = {name: sum(box.label == name for box in boxes) for name in detector.names}
    return {"task": "detection", "boxes": counts}


def _classification(
    config: PredictConfig, volume: Volume, record: WeightsRecord, warm: Workspace
) -> Steps[dict[str, Any]]:
    from medssl.inference.classify import classify, load_classifier

    yield Progress(0, 1, "classifying")
    found = classify(volume, load_classifier(record, warm.device))
    write_json(
        {"classes": [{"class": name, "probability": value} for name, value in found.items()]}, config.out
    )
    return {"task": "classification", "probabilities": found}


_TASKS: dict[str, tuple[Predict, tuple[str, ...]]] = {
    "segmentation": (_segmentation, ()),
    "detection": (_detection, (".json", ".csv")),
    "classification": (_classification, (".json",)),
}
"""How each task predicts, and the names of its files; any image format where none is given."""
