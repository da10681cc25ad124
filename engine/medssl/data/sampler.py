"""Which volumes a training step sees: families in equal parts, a pure function of seed and step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Draw:
    """The samples of one step.

    Args:
        rows: (B,) positions in the data set.
        seeds: (B,) one seed per sample, for its crop.
    """

    rows: NDArray[np.int64]
    seeds: NDArray[np.uint64]


class FamilySampler:
    """Draws a family first, then a volume of it, so that a large collection does not drown a small one.

    Nothing is remembered between steps: step 700 is the same whether or not steps 0 to 699 were drawn, so
    a resumed run needs no state. Memory is one integer per volume. What a step takes from a family are
    different volumes, as long as it has so many.

    Args:
        families: (N,) family number per volume.
        batch_size: samples per step, over all processes.
        seed: of all draws.
        balance: 1 draws every family equally often, 0 every volume; in between, families are drawn
            with probability proportional to (their size) ** (1 - balance).
        together: samples that are drawn from a family at a time; a batch that this does not divide ends with
            fewer.
        rank: number of this process.
        world_size: number of processes; each gets ``batch_size / world_size`` samples of the same draw.

    Raises:
        ValueError: no volumes, or a batch that the processes cannot share equally.
    """

    def __init__(
        self,
        families: NDArray[np.integer],
        batch_size: int,
        *,
        seed: int = 0,
        balance: float = 1.0,
        together: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(families) == 0:
            raise ValueError("there is no volume to sample from")
        if batch_size % world_size:
            raise ValueError(f"a batch of {batch_size} cannot be shared by {world_size} processes")
        self.batch_size = batch_size
        self.seed = seed
        self.together = together
        self.rank = rank
        self.world_size = world_size
        # members of one family lie next to each other, families follow each other
        self._order = np.argsort(families, kind="stable").astype(np.uint32)
        _, counts = np.unique(families, return_counts=True)
        self._counts = counts.astype(np.int64)
        self._first = np.cumsum(self._counts) - self._counts
        weights = self._counts.astype(np.float64) ** (1 - balance)
        self.shares = weights / weights.sum()

    def draw(self, step: int) -> Draw:
        """The samples of this process for one step.

        Families are drawn by systematic sampling: in every batch each appears as often as its share
        says, rounded up or down, instead of by luck.
        """
        rng = np.random.default_rng([self.seed, step])
        edges = np.cumsum(self.shares)
        count = -(-self.batch_size // self.together)
        points = (rng.random() + np.arange(count)) / count
        family = np.minimum(np.searchsorted(edges, points, side="right"), len(edges) - 1)
        family = rng.permutation(np.repeat(family, self.together)[: self.batch_size])
        rows = np.empty(self.batch_size, np.int64)
        for own in np.unique(family):
            places = np.flatnonzero(family == own)
            members = _distinct(int(self._counts[own]), len(places), rng)
            rows[places] = self._order[self._first[own] + members]
        seeds = rng.integers(0, 2**63, self.batch_size, dtype=np.uint64)
        mine = slice(self.rank, None, self.world_size)
        return Draw(rows[mine], seeds[mine])


def _distinct(volumes: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``count`` numbers below ``volumes``, none twice before all came once."""
    rounds = [
        rng.choice(volumes, min(volumes, count - start), replace=False) for start in range(0, count, volumes)
    ]
    return np.concatenate(rounds)
