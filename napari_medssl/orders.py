"""From the labels of a project to a training run's command line."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from medssl.config.finetune import BRIEF_STEPS, FinetuneConfig
from medssl.config.run import explain
from medssl.errors import InputError
from medssl.io import list_series, read_volume, write_volume
from medssl.jobs.progress import Progress, Steps
from medssl.store.labels import LabelStore, voxels_by_value
from medssl.store.project import Project, VolumeEntry, content_hash, copy_path, series_key
from medssl.store.weights import suited

FIRST_SETTINGS = ("mode", "steps")
MORE_SETTINGS = ("batch_size", "evaluate_every", "patience", "encoder_rate", "seed")


@dataclass(frozen=True)
class TrainingOrder:
    """A run that is ready to start.

    Args:
        arguments: the command line after ``medssl``.
        run: the run folder.
        left_out: labelled scans that the run does without, each with its reason.
    """

    arguments: Sequence[str]
    run: Path
    left_out: tuple[str, ...] = ()


def training_defaults() -> FinetuneConfig:
    """The settings that the Train panel opens with."""
    return FinetuneConfig(
        task="segmentation", data=Path(), out=Path(), labels="scribbles", brief=True, steps=BRIEF_STEPS
    )


def order_training(
    folder: Path, encoder: str, device: str, settings: Mapping[str, Any], dims: int = 3
) -> Steps[TrainingOrder]:
    """Write scribbles and a data table of the labelled scans of a project.

    A scan that cannot be read, is another image than the one that was labelled, or has other dimensions
    than the rest is left out and named.

    Args:
        folder: project folder.
        encoder: weights to start from.
        device: "auto", "cpu" or "cuda:0".
        settings: values of the Train panel, by field name.
        dims: spatial dimensions of the open scan; those of most scans count where none of its kind can
            be used.

    Raises:
        InputError: no scan of the project has labels of two classes and can be read.
    """
    project = Project.open(folder)
    name = time.strftime("%Y%m%d-%H%M%S")
    data = folder / "training" / name
    data.mkdir(parents=True, exist_ok=True)
    rows: dict[int, list[dict[str, str]]] = {}
    left_out: list[str] = []
    for number, entry in enumerate(project.volumes):
        yield Progress(number, len(project.volumes), "collecting labels")
        try:
            row = _row(project, entry, data)
        except (InputError, OSError) as error:
            left_out.append(str(error))
            continue
        if row:
            rows.setdefault(len(entry.shape), []).append(row)
    if not rows and not left_out:
        raise InputError("no scan of this project has labels of two classes; paint a few voxels of each")
    if not rows:
        raise InputError(f"no labelled scan of this project can be used: {'; '.join(left_out)}")
    if dims not in rows:
        dims = max(rows, key=lambda n: len(rows[n]))
    for other in rows.keys() - {dims}:
        left_out += [f"{row['image']}: has {other} dimensions, this run {dims}" for row in rows[other]]
    table = data / "table.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("image", "label", "subject", "modality"))
        writer.writeheader()
        writer.writerows(rows[dims])
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
    return TrainingOrder(words, run, tuple(left_out))


def _row(project: Project, entry: VolumeEntry, data: Path) -> dict[str, str]:
    """The line of one scan, with its labels written beside; empty where not two classes are labelled."""
    labels = LabelStore(project, entry.id).restore()
    if len(voxels_by_value(labels).keys() - {0}) < 2:
        return {}
    path = project.path_of(entry.id)
    series = _series(path, entry.series)
    volume = read_volume(path, series)
    # the copy that the project made is the scan, though a format may round its numbers
    is_copy = entry.path == copy_path(entry.id) and volume.geometry.shape == entry.shape
    if not is_copy and content_hash(volume) != entry.sha256:
        raise InputError(f"{path}: holds another image than the one that was labelled; put that one back")
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
