"""What the loaders of labelled scans share: batches by step, and patches that hold a voxel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from medssl.protocols import Batch


class StepBatches(ABC):
    """Batches as a pure function of seed and step: a resumed run needs no state.

    Args:
        modalities: of each scan; a batch numbers them in alphabetical order.
        batch_size: samples per step.
        seed: of all draws.
    """

    def __init__(self, modalities: Sequence[str], batch_size: int, seed: int) -> None:
        self.batch_size = batch_size
        self.seed = seed
        known = sorted(set(modalities))
        self._modality = [known.index(modality) for modality in modalities]

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batch ``start``, ``start + 1``, ... without end."""
        step = start
        while True:
            yield self.batch(step)
            step += 1

    @abstractmethod
    def batch(self, step: int) -> Batch:
        """The batch of one step."""


def corner_around(
    place: Sequence[int] | NDArray[np.intp],
    crop: Sequence[int],
    shape: Sequence[int],
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """First voxel of a patch that holds ``place`` at a random position, inside the scan where it fits.

    Args:
        place: voxel that the patch holds.
        crop: voxels per axis of the patch.
        shape: of the scan.
        rng: of the draw.
    """
    corner = []
    for own, size, whole in zip(place, crop, shape, strict=True):
        low, high = int(own) - size + 1, int(own)
        if whole >= size:
            low, high = max(0, low), min(whole - size, high)
        else:
            low, high = max(whole - size, low), min(0, high)
        corner.append(int(rng.integers(low, high + 1)))
    return tuple(corner)


def cut(
    corner: Sequence[int], crop: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a patch that lies inside the scan: its slices in the scan, and those in the patch."""
    source = tuple(
        slice(max(0, start), min(whole, start + size))
        for start, size, whole in zip(corner, crop, shape, strict=True)
    )
    target = tuple(slice(s.start - start, s.stop - start) for start, s in zip(corner, source, strict=True))
    return source, target
