"""The scan of a row, and what must be said of many of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from medssl.data.table import Row
from medssl.io import read_volume
from medssl.volume import Volume


def read_scan(row: Row) -> Volume:
    """The image of a row; a modality in the table counts more than what the file says or is guessed from it.

    Raises:
        InputError: it cannot be read.
    """
    volume = read_volume(row.image)
    if not row.modality:
        return volume
    notes = tuple(note for note in volume.notes if not note.startswith("modality "))
    return replace(volume, modality=row.modality, notes=notes)


def remarks(notes: Iterable[tuple[str, str]]) -> list[str]:
    """One line per kind of note; notes that differ in numbers alone are of one kind.

    Args:
        notes: (name of the scan, one of its `Volume.notes`), in any number.
    """
    alike: dict[str, list[tuple[str, str]]] = {}
    for image, note in notes:
        alike.setdefault("".join(c for c in note if not c.isdigit()), []).append((image, note))
    lines = []
    for (image, note), *others in alike.values():
        more = f" (and {len(others)} more like it)" if others else ""
        lines.append(f"{image}: {note}{more}")
    return lines
