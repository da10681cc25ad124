"""The labelled scans of a run: what is learned from and what is judged on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssl.commands.finetune.start import same_dims
from medssl.config.finetune import FinetuneConfig
from medssl.data.held_out import (
    hold_out_voxels,
    nested_fraction,
    of_held_out,
    split_rows,
    spread_over_subjects,
)
from medssl.data.labelled import (
    UNLABELLED,
    LabelledVolume,
    class_values,
    known_values,
    read_labelled,
    to_working_grid,
)
from medssl.data.scan import remarks
from medssl.data.table import Row, read_data
from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps
from medssl.volume import Volume

Mask = NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Training and held-out labels of one run.

    Args:
        config: of the run.
        rows: training rows.
        held_rows: held-out rows; empty where voxels of the training scans are held out.
        held_out: a sentence that says what is held out.
        values: mask value of each class.
        train: training labels on the working grid.
        held: held-out labels on the working grid.
        modalities: of the training scans, as the table or the files say.
    """

    config: FinetuneConfig
    rows: tuple[Row, ...]
    held_rows: tuple[Row, ...]
    held_out: str
    values: tuple[int, ...]
    train: tuple[LabelledVolume, ...]
    held: tuple[LabelledVolume, ...]
    modalities: tuple[str, ...] = ()

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return self.train[0].grid.ndim

    @property
    def background(self) -> int | None:
        """Mask value that does not count in mean Dice; None for scribbles, where every class was painted."""
        return 0 if self.config.labels == "dense" else None

    def learned(self) -> Iterator[tuple[Volume, Mask]]:
        """Every training scan with its training labels, on its own grid, read again."""
        for row in self.rows:
            volume, mask = read_known(row, self.config)
            yield volume, mask if self.held_rows else hold_out_voxels(mask, self.config.seed)[0]

    def judged(self) -> Iterator[tuple[Row, Volume, Mask]]:
        """The scans that models are compared on, with the held-out labels on their own grid."""
        rows = self.held_rows or self.rows
        for row in spread_over_subjects(rows, self.config.judged_scans):
            volume, mask = read_known(row, self.config)
            held = mask if self.held_rows else hold_out_voxels(mask, self.config.seed)[1]
            if (held != UNLABELLED).any():
                yield row, volume, held


def read_known(row: Row, config: FinetuneConfig) -> tuple[Volume, Mask]:
    """A scan and its mask values (*S) on the scan's grid, -1 where nothing is known."""
    volume, mask = read_labelled(row)
    return volume, known_values(mask, config.labels)


def read_cohort(
    config: FinetuneConfig, spacing_range: tuple[float, float], dims: int | None, scratch: Path
) -> Steps[Cohort]:
    """Read all labelled scans and bring them to the working grid.

    Args:
        config: table, fraction, kind of labels.
        spacing_range: of the encoder, mm.
        dims: what the encoder takes; None where it is still to be made.
        scratch: folder for arrays on disk.

    Raises:
        InputError: nothing to train on, mixed dimensions, fewer than two classes, or a held-out class
            that no training subject has.
    """
    rows, held_rows, held_out = split_rows(read_data(config.data), config.seed)
    rows = nested_fraction(rows, config.fraction, config.seed)
    train, held, notes, modalities = [], [], [], set()
    total = len(rows) + len(held_rows)
    for number, row in enumerate([*rows, *held_rows], start=1):
        volume, mask = read_known(row, config)
        dims = same_dims(row, volume, dims)
        notes += [(row.image.name, note) for note in volume.notes]
        judged = mask
        if number <= len(rows):
            modalities.add(volume.modality)
            if not held_rows:
                mask, judged = hold_out_voxels(mask, config.seed)
            train.append(to_working_grid(row, volume, mask, spacing_range, scratch))
        if number > len(rows) or (not held_rows and (judged != UNLABELLED).any()):
            held.append(to_working_grid(row, volume, judged, spacing_range, scratch))
        yield Progress(number, total, "reading", message=f"read {row.name or row.image.name}")
    for remark in remarks(notes):
        yield Progress(total, total, "reading", message=remark, notice=True)
    values = class_values(volume.label for volume in train)
    _check_classes(config, values, train, held)
    _check_judged(
        config, spread_over_subjects(held_rows or rows, config.judged_scans), held, in_voxels=not held_rows
    )
    if not held_rows and len(rows) == 1:
        held_out = "a quarter of the painted blocks of the only scan: a hint, not an independent test"
    held_out = of_held_out(held_out, held_rows, config.judged_scans)
    return Cohort(
        config,
        tuple(rows),
        tuple(held_rows),
        held_out,
        values,
        tuple(train),
        tuple(held),
        tuple(sorted(modalities - {""})),
    )


def _check_judged(
    config: FinetuneConfig, judged: Sequence[Row], held: Sequence[LabelledVolume], *, in_voxels: bool
) -> None:
    """Held-out masks of background alone say nothing of any class: Dice over none is no figure."""
    if config.labels == "scribbles":
        return
    rows = {id(row) for row in judged}
    told = {id(volume.row) for volume in held if set(class_values([volume.label])) - {0}}
    if not told & rows:
        if told:
            way = "judge more scans with --judged-scans"
        elif in_voxels:
            way = "each lies in one place, which is learned from; label another scan and give one split val"
        else:
            way = "move a subject that has one to split val"
        raise InputError(
            f"{config.data}: no mask that models are judged on holds a class beside the background; {way}"
        )


def _check_classes(
    config: FinetuneConfig,
    values: Sequence[int],
    train: Sequence[LabelledVolume],
    held: Sequence[LabelledVolume],
) -> None:
    if len(values) < 2:
        painted = f"only class {values[0]}" if values else "nothing"
        hint = "" if config.labels == "scribbles" else "; are the masks scribbles (--labels scribbles)?"
        raise InputError(
            f"{config.data}: {painted} is labelled in the training scans; label two classes{hint}"
        )
    for volume in held:
        unseen = set(class_values([volume.label])) - set(values)
        if unseen:
            share = "" if config.fraction == 1 else f" at --fraction {config.fraction}"
            raise InputError(
                f"{volume.row.origin}: class {min(unseen)} is in no training subject{share}; "
                "label it in one, or move this subject to split train"
            )
    if not held:
        raise InputError(
            f"{config.data}: no label can be held out to judge the model; paint each class in several places"
        )
    for volume in train:
        if not class_values([volume.label]):
            raise InputError(f"{volume.row.origin}: {volume.row.label} labels nothing; leave the row out")
