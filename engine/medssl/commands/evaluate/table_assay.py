"""What the assays share: who is learned from, who is judged, and what a reader has to know."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from medssl.commands.evaluate.assay import rows_of_task, some_subjects
from medssl.config.evaluate import EvaluateConfig
from medssl.data.held_out import nested_fraction, split_rows
from medssl.data.table import Row
from medssl.errors import InputError


class TableAssay:
    """The rows of a data table, split by subject; see `medssl.commands.evaluate.assay.Assay`.

    Args:
        config: settings.
        table: data table (CSV).
        rows: those of the table that are labelled for the task.
        task: "segmentation" or "classification".

    Raises:
        InputError: nobody can be held out.
    """

    multiple = 16
    look_subjects: int | None = None

    def __init__(self, config: EvaluateConfig, table: Path, rows: Sequence[Row], task: str) -> None:
        rows, notes = rows_of_task(rows, config.tasks)
        self._train_rows, held, how = split_rows(rows, config.seed)
        if not held:
            raise InputError(f"{table}: too few subjects to hold one out; give rows of split val")
        self._held_rows = some_subjects(held, config.test_subjects)
        self._config = config
        self.name = table.stem.removeprefix(f"{task}_")
        self.checksum = hashlib.sha256(table.read_bytes()).hexdigest()
        self.notes = (*notes, f"judged on {how}")
        self.subjects = len({row.subject for row in self._train_rows})
        self.held_subjects = len({row.subject for row in self._held_rows})

    @property
    def _rows(self) -> list[Row]:
        """Training rows, then those that are judged."""
        return [*self._train_rows, *self._held_rows]

    def _share(self, fraction: float, seed: int) -> set[int]:
        """``id`` of the training rows of a share of the subjects."""
        return {id(row) for row in nested_fraction(self._train_rows, fraction, seed)}

    def _held_subjects_of(self, count: int | None) -> set[str]:
        """The first so many held-out subjects; None takes all."""
        return set(list(dict.fromkeys(row.subject for row in self._held_rows))[:count])

    def _judged_groups(self) -> Iterator[set[str]]:
        """Every group of held-out subjects that the protocol asks a score of."""
        yield self._held_subjects_of(None)
        if self._config.protocol == "convergence":
            yield self._held_subjects_of(self._config.look_subjects or self.look_subjects)

    def _frozen_steps(self, is_pretrained: bool) -> int:
        """A share of the steps where the mode asks for it; a new encoder has nothing to keep."""
        is_frozen = self._config.mode == "frozen" and is_pretrained
        return round(self._config.frozen_share * self._config.steps) if is_frozen else 0

    def _same_dims(self, scans: Iterable[tuple[Row, int]], dims: int | None) -> int:
        """Dimensions of all scans, and of the encoders where ``dims`` is given.

        Raises:
            InputError: a scan has others.
        """
        known = list(scans)
        wanted = dims or known[0][1]
        for row, own in known:
            if own != wanted:
                raise InputError(
                    f"{row.origin}: {row.image.name} has {own} dimensions, the encoders {wanted}; "
                    "give tables and encoders of one kind"
                )
        return wanted
