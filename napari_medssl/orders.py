"""From the labels of a project to a training run's command line."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from medssl.config.finetune import BRIEF_STEPS, FinetuneConfig
from medssl.config.run import explain
from medssl.errors import InputError
from medssl.io import list_series, read_volume, write_volume
from medssl.jobs.progress import Progress, Steps
from medssl.store.labels import LabelStore
from medssl.store.project import Project, VolumeEntry, series_key
from medssl.store.weights import suited

FIRST_SETTINGS = ("mode", "steps")
MORE_SETTINGS = ("batch_size", "evaluate_every", "patience", "encoder_rate", "seed")


@dataclass(frozen=True)
class TrainingOrder:
    """A run that is ready to start: the command line after ``medssl``, and the run folder."""

    arguments: Sequence[str]
    run: Path


def training_defaults() -> FinetuneConfig:
    """The settings that the Train panel opens with."""
    return FinetuneConfig(
        task="segmentation", data=Path(), out=Path(), labels="scribbles", brief=True, steps=BRIEF_STEPS
    )


def order_training(
    folder: Path, encoder: str, device: str, settings: Mapping[str, Any]
) -> Steps[TrainingOrder]:
    """Write scribbles and a data table of all labelled scans of a project.

    Args:
        folder: project folder.
        encoder: weights to start from.
        device: "auto", "cpu" or "cuda:0".
        settings: values of the Train panel, by field name.

    Raises:
        InputError: no scan of the project has labels of two classes.
    """
    project = Project.open(folder)
    name = time.strftime("%Y%m%d-%H%M%S")
    data = folder / "training" / name
    data.mkdir(parents=True, exist_ok=True)
    rows, dims = [], 3
    for number, entry in enumerate(project.volumes):
        yield Progress(number, len(project.volumes), "collecting labels")
        store = LabelStore(project, entry.id)
        labels = store.restore()
        if len(np.unique(labels)) > 2:
            rows.append(_row(project, entry, labels, data))
            dims = labels.ndim
    if not rows:
        raise InputError("no scan of this project has labels of two classes; paint a few voxels of each")
    table = data / "table.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("image", "label", "subject", "modality"))
        writer.writeheader()
        writer.writerows(rows)
    run = project.runs_folder / name
    config = data / "settings.yaml"
    values = {
        **settings,
        "task": "segmentation",
        "data": str(table),
        "out": str(run),
        "init": suited(encoder, dims),
        "labels": "scribbles",
        "classes": {entry.id: entry.name for entry in project.classes},
        "brief": True,
        "device": device,
        "project": str(folder),
    }
    try:
        FinetuneConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"training settings: {explain(error)}") from error
    config.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    words = ("finetune", "segmentation", "--data", str(table), "--out", str(run), "--config", str(config))
    return TrainingOrder(words, run)


def _row(project: Project, entry: VolumeEntry, labels: Any, data: Path) -> dict[str, str]:
    path = project.path_of(entry.id)
    series = _series(path, entry.series)
    volume = read_volume(path, series)
    label = data / f"{entry.id}-scribbles.nii.gz"
    write_volume(volume.with_array(labels), label)
    if series is not None:  # a data table names no series: the chosen one gets a file of its own
        path = data / f"{entry.id}.nii.gz"
        write_volume(volume, path)
    return {
        "image": str(path.resolve()),
        "label": label.name,
        "subject": entry.id,
        "modality": entry.modality,
    }


def _series(path: Path, key: str) -> str | None:
    if not key:
        return None
    uids = [entry.uid for entry in list_series(path)]
    found = next((uid for uid in uids if series_key(uid) == key), None)
    if found is None:
        raise InputError(f"{path}: the series that was labelled is no longer there")
    return found
