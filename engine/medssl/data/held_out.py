"""Which labels a model learns from and which it is judged on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medssl.data.labelled import UNLABELLED
from medssl.data.table import Row
from medssl.errors import InputError

MIN_SUBJECTS = 4
"""With fewer subjects and no val rows, voxels are held out instead of a subject."""


def share_of(subjects: int, fraction: float) -> int:
    """How many of so many subjects a share is: rounded up, at least one."""
    return max(1, math.ceil(fraction * subjects - 1e-9))


def nested_fraction(rows: Sequence[Row], fraction: float, seed: int) -> list[Row]:
    """The rows of a share of the subjects; a smaller share is always part of a larger one.

    Args:
        rows: training rows.
        fraction: in (0, 1]; at least one subject remains.
        seed: decides the order in which subjects join.
    """
    subjects = sorted({row.subject for row in rows})
    order = np.random.default_rng(seed).permutation(len(subjects))
    kept = {subjects[i] for i in order[: share_of(len(subjects), fraction)]}
    return [row for row in rows if row.subject in kept]


def wanted_tasks(rows: Sequence[Row], tasks: Sequence[str]) -> set[str]:
    """Values of the column task to judge on: those named that a table has, else that of the first val row.

    Raises:
        InputError: tasks are named, and the table has none of them.
    """
    known = {row.task for row in rows}
    if not tasks:
        return {next((row.task for row in rows if row.split == "val"), rows[0].task)}
    if not known & set(tasks):
        there = ", ".join(sorted(known - {""})) or "it names none"
        raise InputError(f"--tasks {','.join(tasks)}: {_table(rows)} has no such task; choose from: {there}")
    return known & set(tasks)


def split_rows(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row], str]:
    """Training rows, held-out rows, and a sentence that says how they were chosen.

    Rows of split val are held out. Without any, a fifth of the subjects is, and with fewer than four
    subjects nobody: the list is empty and voxels have to be held out.

    Raises:
        InputError: nothing to train on.
    """
    train = [row for row in rows if row.split in ("", "train")]
    held = [row for row in rows if row.split == "val"]
    if not train:
        raise InputError(f"{_table(rows)}: no row has split train (or none); nothing to learn from")
    if held:
        return train, held, f"{len(held)} scans of split val"
    subjects = sorted({row.subject for row in train})
    if len(subjects) < MIN_SUBJECTS:
        return train, [], "a quarter of the painted blocks of the training scans, as there is no val split"
    order = np.random.default_rng(seed).permutation(len(subjects))
    chosen = {subjects[i] for i in order[: max(1, len(subjects) // 5)]}
    held = [row for row in train if row.subject in chosen]
    train = [row for row in train if row.subject not in chosen]
    return train, held, f"{len(chosen)} of {len(subjects)} subjects drawn at random, as there is no val split"


def split_scans(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row], str]:
    """`split_rows` for tasks that hold out scans, never voxels.

    Without val rows at least one subject is held out; where there is only one, it is judged on what it was
    learned from, and the sentence says so.

    Raises:
        InputError: nothing to train on.
    """
    train, held, said = split_rows(rows, seed)
    if held:
        return train, held, said
    subjects = sorted({row.subject for row in train})
    if len(subjects) == 1:
        return train, train, "the training scans themselves, as there is one subject only: no test at all"
    chosen = subjects[int(np.random.default_rng(seed).integers(len(subjects)))]
    return (
        [row for row in train if row.subject != chosen],
        [row for row in train if row.subject == chosen],
        f"1 of {len(subjects)} subjects drawn at random, as there is no val split",
    )


def spread_over_subjects(rows: Sequence[Row], count: int) -> list[Row]:
    """At most ``count`` rows: the first of every subject, then the second of every subject, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for row in rows:
        turns.append(seen[row.subject])
        seen[row.subject] += 1
    order = sorted(range(len(rows)), key=turns.__getitem__)
    return [rows[number] for number in order[:count]]


def of_held_out(said: str, held: Sequence[Row], count: int) -> str:
    """The sentence of `split_rows`, where only ``count`` of the held-out scans are judged on."""
    subjects = len({row.subject for row in held})
    return said if len(held) <= count else f"{count} scans, spread over {subjects} subjects, of {said}"


def hold_out_voxels(
    label: NDArray[np.int16], seed: int, share: float = 0.25
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Cut the labels of one volume into a part to learn from and a part to be judged on.

    Whole blocks are held out, not single voxels: the neighbour of a training voxel is no test. A class
    that occupies one block only stays in training.

    Args:
        label: (*S) mask value, -1 unlabelled.
        seed: decides the blocks.
        share: of the blocks of each class.

    Returns:
        Two (*S) label maps; a voxel is labelled in at most one of them.
    """
    edge = max(2, min(16, round(max(label.shape) / 8)))
    blocks = tuple(-(-n // edge) for n in label.shape)
    known = np.argwhere(label >= 0)
    block = np.ravel_multi_index(tuple((known // edge).T), blocks) if len(known) else np.empty(0, np.intp)
    classes = label[tuple(known.T)]
    rng = np.random.default_rng(seed)
    held: set[int] = set()
    kept: set[int] = set()
    # Rare classes first: they have the fewest blocks to give and to keep.
    for index in sorted(np.unique(classes), key=lambda c: len(np.unique(block[classes == c]))):
        own = rng.permutation(np.unique(block[classes == index]))
        if all(int(b) in held for b in own):
            held.discard(int(own[0]))  # every class must be learned, even where none is left to judge
        free = [int(b) for b in own if int(b) not in held and int(b) not in kept]
        wanted = max(1, round(share * len(own))) if len(own) > 1 else 0
        missing = max(0, wanted - sum(int(b) in held for b in own))
        if not any(int(b) in kept for b in own):
            missing = min(missing, max(0, len(free) - 1))
        held.update(free[:missing])
        kept.update(free[missing:])
    is_held = np.isin(block, sorted(held))
    train, judged = np.full_like(label, UNLABELLED), np.full_like(label, UNLABELLED)
    train[tuple(known[~is_held].T)] = classes[~is_held]
    judged[tuple(known[is_held].T)] = classes[is_held]
    return train, judged


def _table(rows: Sequence[Row]) -> str:
    return rows[0].origin.rsplit(":", 1)[0] if rows else "the data table"
