"""The scans with boxes of a detection run: what is learned from and what is judged on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medssl.commands.finetune.start import Start, same_dims
from medssl.config.finetune import FinetuneConfig
from medssl.data.boxed import BoxedVolume, box_working_grid, class_names, read_boxed
from medssl.data.held_out import nested_fraction, of_held_out, split_scans, spread_over_subjects
from medssl.data.scan import remarks
from medssl.data.table import Row, read_data
from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps
from medssl.volume import Volume
from medssl.volume.regions import Box


@dataclass(frozen=True, eq=False)
class BoxedCohort:
    """Training and held-out boxes of one run.

    Args:
        config: of the run.
        rows: training rows.
        held_rows: held-out rows.
        held_out: a sentence that says what is held out.
        names: of the classes.
        train: training scans on the working grid.
        held: held-out scans on the working grid.
        modalities: of the training scans, as the table or the files say.
    """

    config: FinetuneConfig
    rows: tuple[Row, ...]
    held_rows: tuple[Row, ...]
    held_out: str
    names: tuple[str, ...]
    train: tuple[BoxedVolume, ...]
    held: tuple[BoxedVolume, ...]
    modalities: tuple[str, ...] = ()

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return self.train[0].grid.ndim

    def judged(self) -> Iterator[tuple[Row, Volume, list[Box]]]:
        """The scans that the detector is judged on, with the true boxes on their own grid."""
        for row in spread_over_subjects(self.held_rows, self.config.judged_scans):
            yield row, *read_row(row, self.config)


def read_row(row: Row, config: FinetuneConfig) -> tuple[Volume, list[Box]]:
    """A scan and its boxes on the scan's own grid."""
    return read_boxed(row, config.detection.masks, config.classes, config.detection.smallest)


def read_boxed_cohort(start: Start) -> Steps[BoxedCohort]:
    """Read all scans with boxes and bring them to the working grid.

    Raises:
        InputError: no box to learn from or to judge by, mixed dimensions, or a held-out class that no
            training subject has.
    """
    config, dims = start.config, start.dims
    rows, held_rows, held_out = split_scans(read_data(config.data), config.seed)
    rows = nested_fraction(rows, config.fraction, config.seed)
    known: dict[str, list[Box]] = {"train": [], "held": []}
    for part, group in (("train", rows), ("held", held_rows)):
        for row in group:
            known[part] += read_row(row, config)[1] if row.boxes is None else _boxes(row)
    names = class_names(known["train"])
    _check(config, names, known["held"])
    volumes: list[BoxedVolume] = []
    notes, modalities = [], set()
    total = len(rows) + len(held_rows)
    for number, row in enumerate([*rows, *held_rows], start=1):
        volume, boxes = read_row(row, config)
        dims = same_dims(row, volume, dims)
        if number <= len(rows):
            modalities.add(volume.modality)
        notes += [(row.image.name, note) for note in volume.notes]
        volumes.append(
            box_working_grid(
                row, volume, boxes, names, spacing_range=start.spacing_range, scratch=start.scratch
            )
        )
        yield Progress(number, total, "reading", message=f"read {row.name or row.image.name}")
    for remark in remarks(notes):
        yield Progress(total, total, "reading", message=remark, notice=True)
    train, held = volumes[: len(rows)], volumes[len(rows) :]
    held_out = of_held_out(held_out, held_rows, config.judged_scans)
    return BoxedCohort(
        config,
        tuple(rows),
        tuple(held_rows),
        held_out,
        names,
        tuple(train),
        tuple(held),
        tuple(sorted(modalities - {""})),
    )


def _boxes(row: Row) -> list[Box]:
    from medssl.data.boxed import OBJECT
    from medssl.io.tables import read_boxes

    boxes = [] if row.boxes is None else read_boxes(row.boxes)
    return [Box(box.start, box.stop, box.label or OBJECT) for box in boxes]


def _check(config: FinetuneConfig, names: Sequence[str], held: Sequence[Box]) -> None:
    if not names:
        raise InputError(f"{config.data}: the training scans have no box; detection learns from boxes")
    if not held:
        raise InputError(
            f"{config.data}: the held-out scans have no box to judge the detector by; move one to split val"
        )
    unseen = sorted({box.label for box in held} - set(names))
    if unseen:
        share = "" if config.fraction == 1 else f" at --fraction {config.fraction}"
        raise InputError(
            f"{config.data}: class {unseen[0]!r} of a held-out scan is in no training subject{share}; "
            "draw it in one, or move the subject to split train"
        )
