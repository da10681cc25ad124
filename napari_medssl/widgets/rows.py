"""What the tables of the panels show: plain values, no Qt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClusterRow:
    """One cluster: number, colour, share of the body's voxels, volume in ml (None: unknown)."""

    number: int
    colour: tuple[int, int, int]
    share: float
    millilitres: float | None


@dataclass(frozen=True)
class HitRow:
    """One hit: score, name of the case (empty for the shown one), voxel, position in mm as text (empty for
    a picture)."""

    score: float
    case: str
    voxel: tuple[int, ...]
    mm: str
