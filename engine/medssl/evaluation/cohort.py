"""Labelled scans to measure on: the val subjects of a data table, cut to what matters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssl.data.held_out import wanted_tasks
from medssl.data.labelled import whole_numbers
from medssl.data.table import Row, read_data
from medssl.errors import InputError
from medssl.io import read_volume
from medssl.volume import Volume


@dataclass(frozen=True, eq=False)
class Case:
    """One labelled scan, cut to its label plus a margin.

    Args:
        subject: the patient.
        volume: the cut image; its ``id`` is the name of the row.
        label: (*S) class per voxel, 0 = background.
    """

    subject: str
    volume: Volume
    label: NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Cohort:
    """The cases of one data table, one image per subject.

    Args:
        name: of the table, without "segmentation_".
        cases: sorted by subject.
        classes: foreground classes of the table, increasing.
        checksum: sha256 of the table.
        notes: what a reader of the figures has to know.
    """

    name: str
    cases: tuple[Case, ...]
    classes: tuple[int, ...]
    checksum: str
    notes: tuple[str, ...] = ()

    def pick(self, seed: int) -> int:
        """The case that a seed works in: seeds that follow each other take different subjects."""
        order = np.random.default_rng(0).permutation(len(self.cases))
        return int(order[seed % len(order)])


def read_cohort(
    table: Path, *, tasks: Sequence[str] = (), margin_mm: float, max_voxels: int, subjects: int
) -> Cohort:
    """Read the val subjects of a table.

    Args:
        table: data table (CSV).
        tasks: values of the column ``task`` to use; empty: the one of the first val row.
        margin_mm: margin around the label that is kept.
        max_voxels: a larger cut is shrunk around the label's median.
        subjects: how many subjects the protocol needs. Where fewer are in split val, the labelled
            subjects of the other splits join them, and a note says so.

    Raises:
        InputError: no labelled row, too few subjects, or a label that does not fit its image.
    """
    rows = [row for row in read_data(table) if row.label is not None]
    if not rows:
        raise InputError(f"{table}: no row has a label; evaluation needs the column label")
    judged = [row for row in rows if row.split == "val"] or rows
    wanted = wanted_tasks(rows, tasks)
    notes = [] if judged[0].split == "val" else ["no row has split val: all labelled rows are used"]
    chosen = _first_per_subject(row for row in judged if row.task in wanted)
    if len(chosen) < subjects:
        chosen = _first_per_subject(row for row in [*judged, *rows] if row.task in wanted)
        notes.append("too few val subjects: labelled subjects of other splits are used as well")
    if len(chosen) < subjects:
        raise InputError(
            f"{table}: has {len(chosen)} labelled subject(s) of task {', '.join(sorted(wanted))}; "
            f"{subjects} are needed"
        )
    others = {row.task for row in rows} - wanted
    if others:
        notes.append(f"task {', '.join(sorted(wanted))}; not used: {', '.join(sorted(others))}")
    cases = tuple(read_case(row, margin_mm, max_voxels) for row in sorted(chosen, key=lambda r: r.subject))
    classes = sorted({int(value) for case in cases for value in np.unique(case.label)} - {0})
    name = table.stem.removeprefix("segmentation_")
    checksum = hashlib.sha256(table.read_bytes()).hexdigest()
    return Cohort(name, cases, tuple(classes), checksum, tuple(notes))


def read_case(row: Row, margin_mm: float, max_voxels: int) -> Case:
    """One row, cut to its label plus ``margin_mm``.

    Raises:
        InputError: the label lies on another grid, or marks nothing.
    """
    if row.label is None:
        raise InputError(f"{row.origin}: has no label")
    image, mask = read_volume(row.image), read_volume(row.label)
    if not mask.geometry.matches(image.geometry, tolerance=0.1):
        raise InputError(f"{row.origin}: the label {row.label} does not lie on the grid of its image")
    label = whole_numbers(mask.array, f"{row.origin}: the label {row.label}").astype(np.int16)
    where = np.argwhere(label > 0)
    if len(where) == 0:
        raise InputError(f"{row.origin}: the label {row.label} marks no voxel; remove the row")
    spacing = np.asarray(image.geometry.spacing)
    margin = np.ceil(margin_mm / spacing).astype(int)
    start = np.maximum(where.min(axis=0) - margin, 0)
    stop = np.minimum(where.max(axis=0) + 1 + margin, label.shape)
    start, stop = _shrink(start, stop, np.median(where, axis=0).astype(int), max_voxels)
    part = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    geometry = image.geometry.cropped(tuple(int(a) for a in start), tuple(int(n) for n in stop - start))
    array = np.ascontiguousarray(image.array[(slice(None), *part)])
    volume = Volume(array, geometry, row.modality or image.modality, id=row.name)
    return Case(row.subject, volume, np.ascontiguousarray(label[part]))


def _shrink(
    start: NDArray[np.intp], stop: NDArray[np.intp], centre: NDArray[np.intp], max_voxels: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The box of at most ``max_voxels`` inside [start, stop) that keeps its shape, near ``centre``."""
    size = stop - start
    total = float(np.prod(size.astype(float)))
    if total <= max_voxels:
        return start, stop
    smaller = np.maximum(1, (size * (max_voxels / total) ** (1 / len(size))).astype(int))
    first = np.clip(centre - smaller // 2, start, stop - smaller)
    return first, first + smaller


def _first_per_subject(rows: Iterable[Row]) -> list[Row]:
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(row.subject, row)
    return list(found.values())
