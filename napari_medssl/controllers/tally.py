"""How many voxels of each class are labelled, kept up to date stroke by stroke."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from medssl.store.edits import Edit
from medssl.store.labels import voxels_by_value
from medssl.store.project import LabelClass


class Tally:
    """Counts by class; 0 (unlabelled) is left out.

    Whole masks are counted elsewhere, on the device thread; an edit costs its box.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def restart(self, counts: Mapping[int, int] | None = None) -> None:
        """Begin with the counts of a mask, or with nothing."""
        self._counts = Counter(counts)

    def change(self, edit: Edit) -> None:
        """Take account of an edit."""
        self._add(edit.before, -1)
        self._add(edit.after, 1)

    @property
    def labelled(self) -> dict[int, int]:
        """Labelled voxels by class, smallest class first."""
        return {value: count for value, count in sorted(self._counts.items()) if value > 0 and count > 0}

    def words(self, classes: Sequence[LabelClass]) -> str:
        """What is labelled, and what is missing before a proposal can be made."""
        names = {entry.id: entry.name for entry in classes}
        parts = [f"{names.get(value, value)} {count:,}" for value, count in self.labelled.items()]
        text = f"Labelled voxels: {', '.join(parts)}." if parts else "Nothing labelled yet."
        if len(parts) < 2:
            text += " Paint a few voxels of at least two classes; the proposal follows."
        return text

    def _add(self, mask: NDArray[Any], sign: int) -> None:
        for value, count in voxels_by_value(mask).items():
            self._counts[value] += sign * count
