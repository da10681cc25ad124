"""What the fine-tuned protocols need to know of a task, and where they find it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from medssl.config.evaluate import EvaluateConfig
from medssl.data.held_out import wanted_tasks
from medssl.data.table import Row
from medssl.errors import InputError
from medssl.training.loop import Batches

Perturb = Callable[[Tensor, Tensor | None, str], tuple[Tensor, Tensor | None]]
"""Image (1, C, *S), label (1, 1, *S) or None, and name of a held-out scan -> the same, changed."""


class Assay(Protocol):
    """One labelled table as a task: networks to train, batches to train on, scans to judge on.

    Attributes:
        name: of the table, without the task.
        metric: name of the score, in [0, 1], higher is better.
        look_subjects: held-out subjects that suffice to follow training; None for all.
        checksum: sha256 of the table.
        digest: of everything that was read.
        spatial_dims: 2 or 3.
        subjects: training subjects.
        held_subjects: held-out subjects that are judged.
        notes: what a reader of the figures has to know.
        multiple: what the voxels of a training patch come in: the coarsest strides of all encoders.
    """

    name: str
    metric: str
    look_subjects: int | None
    checksum: str
    digest: str
    spatial_dims: int
    subjects: int
    held_subjects: int
    notes: tuple[str, ...]
    multiple: int

    def task(self, encoder: nn.Module, *, seed: int, is_pretrained: bool) -> nn.Module:
        """The trainable around an encoder; all but the encoder is the same for every encoder.

        Args:
            encoder: used as it is, not copied.
            seed: of everything that is new.
            is_pretrained: whether its running statistics mean something.
        """
        ...

    def batches(self, fraction: float, seed: int) -> tuple[Batches, int]:
        """Training batches from a share of the subjects, and how many subjects that are."""
        ...

    def score(
        self, task: nn.Module, subjects: int | None = None, perturb: Perturb | None = None
    ) -> tuple[float, Mapping[str, Any]]:
        """Score on held-out subjects, and its parts.

        Args:
            task: from `task`.
            subjects: judge the first so many only, in an order that does not depend on the model.
            perturb: what is done to every scan before.

        Raises:
            InputError: these subjects give no score.
        """
        ...


ASSAYS = {
    "segmentation": "medssl.commands.evaluate.segmentation:SegmentationAssay",
    "classification": "medssl.commands.evaluate.classification:ClassificationAssay",
}
"""Tasks that can be evaluated by fine-tuning."""


def read_assay(
    config: EvaluateConfig, table: Path, spacing_range: tuple[float, float], dims: int | None, scratch: Path
) -> Assay:
    """Read one table for the task of the settings.

    Args:
        config: settings.
        table: data table (CSV).
        spacing_range: of the encoders, mm.
        dims: what the encoders take; None takes what the table has.
        scratch: folder for arrays on disk.

    Raises:
        InputError: no such task, or a table that does not fit it.
    """
    if config.task not in ASSAYS:
        raise InputError(f"--task {config.task}: cannot be evaluated; choose from {', '.join(ASSAYS)}")
    module, name = ASSAYS[config.task].split(":")
    made: Assay = getattr(import_module(module), name)(config, table, spacing_range, dims, scratch)
    return made


def rows_of_task(rows: Sequence[Row], tasks: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Rows of the wanted values of the column task, by default the one of the first row, and a note.

    Raises:
        InputError: tasks are named, and there is none of them.
    """
    wanted = wanted_tasks(rows, tasks)
    others = {row.task for row in rows} - wanted
    notes = [f"task {', '.join(sorted(wanted))}; not used: {', '.join(sorted(others))}"] if others else []
    return [row for row in rows if row.task in wanted], notes


def some_subjects(rows: Sequence[Row], count: int | None) -> list[Row]:
    """Rows in an order of subjects that favours none, of the first ``count`` of them."""
    subjects = sorted({row.subject for row in rows})
    order = np.random.default_rng(0).permutation(len(subjects))[:count]
    place = {subjects[number]: position for position, number in enumerate(order)}
    return sorted((row for row in rows if row.subject in place), key=lambda row: place[row.subject])
