"""One measurement, one file: a stopped evaluation continues where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medssl.store.atomic import write_atomically


@dataclass(frozen=True)
class Cell:
    """One measurement of one feature kind on one table with one seed.

    Args:
        protocol: name of the protocol.
        data: name of the data table.
        kind: feature kind.
        seed: of subject, voxels and random weights.
        subject: the one that was labelled, corrected or asked about.
        metrics: single numbers; absent ones (a goal not reached) are left out.
        series: numbers per round.
        detail: numbers per class or per target, not averaged over seeds.
        seconds: time it took.
    """

    protocol: str
    data: str
    kind: str
    seed: int
    subject: str
    metrics: Mapping[str, float]
    series: Mapping[str, list[float]] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class CellStore:
    """A folder of finished cells, each under the signature of everything its numbers depend on.

    Args:
        folder: made when the first cell is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, protocol: str, data: str, kind: str, seed: int, signature: Mapping[str, Any]) -> Path:
        """File of a cell, whether it exists or not."""
        digest = hashlib.sha256(json.dumps(signature, sort_keys=True).encode()).hexdigest()[:12]
        return self.folder / protocol / f"{data}-{kind}-seed{seed}-{digest}.json"

    def load(
        self, protocol: str, data: str, kind: str, seed: int, signature: Mapping[str, Any]
    ) -> Cell | None:
        """The finished cell of exactly this signature; None where it is absent or half written."""
        path = self.path(protocol, data, kind, seed, signature)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return Cell(**values)
        except (OSError, ValueError, TypeError):
            return None

    def save(self, cell: Cell, signature: Mapping[str, Any]) -> None:
        """Write a cell in one go."""
        path = self.path(cell.protocol, cell.data, cell.kind, cell.seed, signature)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(cell), indent=1))


def cache_folder(out: Path) -> Path:
    """Where cells, embeddings and trained networks lie; git ignores it and it may be deleted.

    Args:
        out: folder of the results.
    """
    folder = out / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return folder
