"""Parts of a volume that someone marked or a model found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medssl.volume.geometry import Geometry


@dataclass(frozen=True)
class Box:
    """An upright box of voxels.

    Args:
        start: first voxel per axis, array order, length n = 2 or 3.
        stop: the voxel after the last one per axis (half-open).
        label: name of its class.
        score: confidence in [0, 1]; None for a box drawn by a person.

    Raises:
        ValueError: lengths differ, or the box is empty.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    label: str = ""
    score: float | None = None

    def __post_init__(self) -> None:
        if len(self.start) != len(self.stop) or len(self.start) not in (2, 3):
            raise ValueError(f"a box has 2 or 3 axes, given {self.start} and {self.stop}")
        if any(stop <= start for start, stop in zip(self.start, self.stop, strict=True)):
            raise ValueError(f"a box ends after it begins, given {self.start} to {self.stop}")

    def corners(self, geometry: Geometry) -> NDArray[np.float64]:
        """(2, n) world mm, array order, of its first and its last outer corner (voxel edges)."""
        return geometry.to_world(np.array([self.start, self.stop], dtype=float) - 0.5)


def box_of(mask: NDArray[np.bool_], label: str = "") -> Box | None:
    """The smallest box around the true voxels of (*S); None where there are none."""
    if not mask.any():
        return None
    bounds = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        bounds.append((int(hit[0]), int(hit[-1]) + 1))
    return Box(tuple(first for first, _ in bounds), tuple(last for _, last in bounds), label)
