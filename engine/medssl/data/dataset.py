"""Random crops of the training cache as batches, read ahead of the training step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from medssl.data.cache import Cache
from medssl.data.labelled import UNLABELLED, to_indices
from medssl.data.sampler import Draw, FamilySampler
from medssl.data.table import TRAINING_SPLITS
from medssl.errors import InputError
from medssl.protocols import Batch
from medssl.volume import Geometry
from medssl.volume.resample import Floats, interpolate, interpolation_matrices

Padding = Literal["zero", "edge", "reflect"]
_NUMPY_PADDING: dict[Padding, Literal["constant", "edge", "symmetric"]] = {
    "zero": "constant",
    "edge": "edge",
    "reflect": "symmetric",
}


_MOST_PADDING = 8  # times the largest image along every axis
_LOOKED_AT = 4096


class CropDataset:
    """Random crops of the volumes of a cache.

    Args:
        cache: where the volumes lie.
        spatial_dims: 3, or 2 for images and for random slices (along z) of volumes.
        crop: voxels per axis of a sample.
        splits: volumes of these splits only.
        zoom: smallest and largest factor on the edge of the box that is read and then resized to
            ``crop``; the spacing of the sample changes with it.
        foreground: a crop with a smaller share of voxels above 0.1 is drawn again, up to 4 times; the
            best one is kept.
        padding: what surrounds a volume smaller than the crop; "zero" is what an encoder sees at the
            border of a scan.
        labels: whether batches carry the masks, as positions in ``cache.label_values``.
        name: what the user calls the data, for messages; by default the folder of the cache.

    Raises:
        InputError: no volume of the cache fits ``splits`` and ``spatial_dims``, or a crop is larger than any.
    """

    TRIES = 4

    def __init__(
        self,
        cache: Cache,
        spatial_dims: int,
        crop: tuple[int, ...],
        *,
        splits: tuple[str, ...] = TRAINING_SPLITS,
        zoom: tuple[float, float] = (1.0, 1.0),
        foreground: float = 0.1,
        padding: Padding = "zero",
        labels: bool = False,
        name: str = "",
    ) -> None:
        if len(crop) != spatial_dims:
            raise ValueError(f"a crop of {spatial_dims} axes needs as many sizes, given {crop}")
        self.cache = cache
        self.spatial_dims = spatial_dims
        self.crop = crop
        self.zoom = zoom
        self.foreground = foreground
        self.padding = padding
        self.labels = labels
        allowed = [number for number, split in enumerate(cache.column("split")) if split in splits]
        usable = np.isin(cache.entries["split"], allowed) & (cache.entries["ndim"] >= spatial_dims)
        self.rows = np.flatnonzero(usable).astype(np.uint32)
        if len(self.rows) == 0:
            wanted = " or ".join(split or "(none)" for split in splits)
            raise InputError(
                f"{name or cache.folder}: no {spatial_dims}D image of split {wanted} to train on"
            )
        largest = cache.entries[self.rows[:_LOOKED_AT]]["shape"].max(axis=0)[3 - spatial_dims :].tolist()
        if all(edge > _MOST_PADDING * size for edge, size in zip(crop, largest, strict=True)):
            raise InputError(
                f"{name or cache.folder}: a crop of {crop[0]} voxels would be nothing but padding, the "
                f"largest image has {' x '.join(map(str, largest))}; choose a smaller --sampling.crop"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def with_crop(self, crop: tuple[int, ...]) -> CropDataset:
        """The same volumes in crops of another size."""
        other = copy(self)
        other.crop = crop
        return other

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names behind ``Batch.modality``."""
        return tuple(self.cache.column("modality"))

    def families(
        self, column: Literal["group", "task", "modality", "subject"] = "group"
    ) -> NDArray[np.uint32]:
        """(N,) number of each volume's family."""
        numbers: NDArray[np.uint32] = self.cache.entries[column][self.rows].astype(np.uint32)
        return numbers

    def modality_volumes(self) -> list[int]:
        """Number of volumes of each of `modalities`."""
        counts = np.bincount(self.families("modality"), minlength=len(self.modalities))
        return [int(count) for count in counts]

    def domains(self) -> tuple[list[str], list[str], list[tuple[int, int]]]:
        """Names of all tasks, names of all groups, and the pairs of their numbers that occur."""
        tasks, groups = (self.families(name).astype(np.uint64) for name in ("task", "group"))
        pairs = np.unique(tasks << np.uint64(32) | groups)
        found = [(int(pair) >> 32, int(pair) & 0xFFFFFFFF) for pair in pairs]
        return self.cache.column("task"), self.cache.column("group"), found

    def sample(self, index: int, seed: int) -> tuple[NDArray[np.float32], tuple[float, ...]]:
        """One crop: values (*crop) in [0, 1] and spacing in mm.

        Args:
            index: position in the data set.
            seed: decides the crop completely.
        """
        values, spacing, _ = self._sample(index, seed)
        return values, spacing

    def _sample(
        self, index: int, seed: int
    ) -> tuple[NDArray[np.float32], tuple[float, ...], NDArray[np.int16] | None]:
        rng = np.random.default_rng(seed)
        row = int(self.rows[index])
        shape = self.cache.shape(row)
        low, high = self.zoom
        factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        edges = tuple(max(1, round(n * factor)) for n in self.crop)
        size = edges if self.spatial_dims == 3 else (1, *edges)
        place = _Place.drawn(shape, size, rng)
        best, most = self._read(row, place), -1.0
        for attempt in range(self.TRIES):
            other = place if attempt == 0 else _Place.drawn(shape, size, rng)
            values = best if attempt == 0 else self._read(row, other)
            share = float((values > 0.1).mean())
            if share > most:
                best, most, place = values, share, other
            if share >= self.foreground:
                break
        label = self._read_label(row, place) if self.labels else None
        if self.spatial_dims == 2:
            best = best[0]
        if best.shape != self.crop:
            best = interpolate(best[None], _zoom(best.shape, self.crop))[0]
        spacing = self.cache.entries[row]["spacing"][3 - self.spatial_dims :].astype(float)
        mm = tuple(float(s) * e / n for s, e, n in zip(spacing, edges, self.crop, strict=True))
        return best, mm, label

    def _read(self, row: int, place: _Place) -> NDArray[np.float32]:
        values = self.cache.read(row, place.start, place.counts)
        if place.counts == place.size:
            return values
        return np.pad(values, place.margins, mode=_NUMPY_PADDING[self.padding])

    def _read_label(self, row: int, place: _Place) -> NDArray[np.int16]:
        """Class indices (*crop); -1 outside the volume and where nothing is known."""
        values = self.cache.read_label(row, place.start, place.counts)
        if values is None:
            return np.full(self.crop, UNLABELLED, np.int16)
        indices = to_indices(values, self.cache.label_values)
        indices = np.pad(indices, place.margins, constant_values=UNLABELLED)
        indices = indices[0] if self.spatial_dims == 2 else indices
        nearest = [
            ((np.arange(n) + 0.5) * m / n).astype(np.intp)
            for m, n in zip(indices.shape, self.crop, strict=True)
        ]
        return cast("NDArray[np.int16]", indices[np.ix_(*nearest)])

    def batch(self, draw: Draw) -> Batch:
        """The samples of one step."""
        samples = [self._sample(int(i), int(s)) for i, s in zip(draw.rows, draw.seeds, strict=True)]
        rows = self.rows[draw.rows]
        entries = self.cache.entries[rows]
        targets = {name: torch.from_numpy(entries[name].astype(np.int64)) for name in ("task", "group")}
        if self.cache.classes:
            targets["class"] = torch.from_numpy(self.cache.class_targets(rows))
        masks = [label for _, _, label in samples if label is not None]
        return Batch(
            image=torch.from_numpy(np.stack([values for values, _, _ in samples])[:, None]),
            spacing=torch.tensor([spacing for _, spacing, _ in samples], dtype=torch.float32),
            modality=torch.from_numpy(entries["modality"].astype(np.int64)),
            index=torch.from_numpy(draw.rows),
            label=torch.from_numpy(np.stack(masks)[:, None].astype(np.int64)) if masks else None,
            targets=targets,
        )


@dataclass(frozen=True)
class _Place:
    """A box of ``size``: its part inside the volume is ``counts`` long from ``start``, ``margins`` around."""

    size: tuple[int, ...]
    start: tuple[int, ...]
    counts: tuple[int, ...]
    margins: list[tuple[int, int]]

    @classmethod
    def drawn(cls, shape: tuple[int, ...], size: tuple[int, ...], rng: np.random.Generator) -> _Place:
        """At a random place; a volume smaller than the box lies at a random place in it."""
        begin = [
            int(rng.integers(min(0, s - n), max(0, s - n) + 1)) for s, n in zip(shape, size, strict=True)
        ]
        start = tuple(max(0, a) for a in begin)
        stop = [min(s, a + n) for s, a, n in zip(shape, begin, size, strict=True)]
        counts = tuple(b - a for a, b in zip(start, stop, strict=True))
        before = [i - a for i, a in zip(start, begin, strict=True)]
        margins = [(b, n - b - c) for b, n, c in zip(before, size, counts, strict=True)]
        return cls(size, start, counts, margins)


@lru_cache(maxsize=512)
def _zoom(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[Floats, ...]:
    grid = Geometry.from_arrays(source)
    return interpolation_matrices(grid, grid.resampled(target))


class Loader:
    """Batches of a data set by step, made ahead on threads while the step computes.

    Args:
        dataset: where crops come from.
        sampler: which crops.
        workers: threads; 0 reads in the training thread.
        prefetch: batches made ahead per thread.
    """

    def __init__(
        self, dataset: CropDataset, sampler: FamilySampler, *, workers: int = 1, prefetch: int = 2
    ) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.workers = workers
        self.prefetch = prefetch

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batch ``start``, ``start + 1``, ... without end; the same whatever came before."""
        if self.workers == 0:
            step = start
            while True:
                yield self._make(step)
                step += 1
        ahead = self.workers * self.prefetch
        with ThreadPoolExecutor(self.workers, thread_name_prefix="crops") as pool:
            waiting: deque[Future[Batch]] = deque(pool.submit(self._make, start + n) for n in range(ahead))
            step = start + ahead
            try:
                while True:
                    batch = waiting.popleft().result()
                    waiting.append(pool.submit(self._make, step))
                    step += 1
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()

    def _make(self, step: int) -> Batch:
        return self.dataset.batch(self.sampler.draw(step))
