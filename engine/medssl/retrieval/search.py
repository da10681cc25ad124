"""From a voxel or a painted region to ranked hits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.retrieval.cells import pooled
from medssl.retrieval.index import FeatureIndex, Hit
from medssl.volume import Geometry, Volume
from medssl.volume.resample import interpolate, interpolation_matrices


@dataclass(frozen=True)
class SearchResult:
    """What was looked for and what was found.

    Args:
        volume: id of the volume of the query.
        voxel: where in it, array order; the centre of a painted region.
        hits: best first.
        notes: what was chosen, inferred or repaired on reading the scan.
    """

    volume: str
    voxel: tuple[int, ...]
    hits: tuple[Hit, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The content of ``hits.json``."""
        return {
            "query": {"volume": self.volume, "voxel": list(self.voxel)},
            "hits": [hit.to_json() for hit in self.hits],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """For the terminal."""
        lines = [f"{len(self.hits)} places like {self.volume} at {self._place(self.voxel)}"]
        lines += [f"{h.score:.3f}  {h.volume}  {self._place(h.voxel)}" for h in self.hits]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    @staticmethod
    def _place(voxel: Sequence[int]) -> str:
        return ",".join(str(v) for v in voxel)


def vector_at(features: Volume, source: Geometry, voxel: Sequence[int]) -> NDArray[np.float32]:
    """The feature of a place: indexed cells interpolated at a voxel.

    Args:
        features: dense map (D, *S'), of the whole volume or of a part around the voxel.
        source: grid of the volume.
        voxel: index in ``source``.

    Returns:
        (D,) unit vector; equal to the indexed one at the centre of a cell.

    Raises:
        InputError: the voxel lies outside the volume.
    """
    check_voxel(source, voxel)
    coarse = pooled(features)
    point = source.cropped(tuple(int(v) for v in voxel), (1,) * source.ndim)
    near = coarse.geometry.to_index(point.origin)
    # one voxel is finer than a cell: plain linear weights of the neighbours
    step = np.asarray(source.spacing) / np.asarray(coarse.geometry.spacing)
    if (step > 1).any():
        index = tuple(np.clip(np.rint(near), 0, np.asarray(coarse.geometry.shape) - 1).astype(int))
        vector = coarse.array[(slice(None), *index)]
    else:
        vector = interpolate(coarse.array, interpolation_matrices(coarse.geometry, point)).reshape(-1)
    return _unit(vector)


def vector_of(features: Volume, source: Geometry, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The feature of a painted region: the mean over the cells it covers, by the share covered.

    Args:
        features: dense map (D, *S').
        source: grid of the volume.
        mask: (*S) painted voxels.

    Returns:
        (D,) unit vector.

    Raises:
        InputError: nothing is painted.
    """
    painted = np.argwhere(mask)
    if len(painted) == 0:
        raise InputError("the region is empty: paint at least one voxel")
    coarse = pooled(features)
    index = np.rint(coarse.geometry.to_index(source.to_world(painted)))
    index = np.clip(index, 0, np.asarray(coarse.geometry.shape) - 1).astype(np.int64)
    cell = np.ravel_multi_index(tuple(index.T), coarse.geometry.shape)
    covered, counts = np.unique(cell, return_counts=True)
    vectors = coarse.array.reshape(len(coarse.array), -1)[:, covered]
    return _unit(vectors @ counts.astype(np.float32))


def centre_of(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """The painted voxel nearest to the mean of all painted voxels."""
    painted = np.argwhere(mask)
    if len(painted) == 0:
        raise InputError("the region is empty: paint at least one voxel")
    nearest = np.abs(painted - painted.mean(0)).sum(1).argmin()
    return tuple(int(v) for v in painted[nearest])


def search(
    index: FeatureIndex,
    query: NDArray[np.float32],
    volume: str,
    voxel: Sequence[int],
    *,
    top: int = 10,
    volumes: Collection[str] | None = None,
    separation_mm: float | None = None,
) -> SearchResult:
    """Ranked hits for a query vector, with the place it came from.

    Args:
        index: where to look.
        query: (D,) from `vector_at`, `vector_of` or `FeatureIndex.cell_at`.
        volume: id of the volume the query came from.
        voxel: place of the query in it.
        top: most hits.
        volumes: ids to look in, all by default.
        separation_mm: least distance of two hits in one volume; None takes two cells.
    """
    hits = index.search(query, top, volumes=volumes, separation_mm=separation_mm)
    return SearchResult(volume, tuple(int(v) for v in voxel), tuple(hits))


def check_voxel(geometry: Geometry, voxel: Sequence[int]) -> None:
    """Raise `InputError` unless a voxel lies in a grid."""
    if len(voxel) != geometry.ndim:
        raise InputError(f"a voxel of this image has {geometry.ndim} numbers, {len(voxel)} were given")
    if not all(0 <= v < n for v, n in zip(voxel, geometry.shape, strict=True)):
        place, shape = (",".join(str(v) for v in x) for x in (voxel, geometry.shape))
        raise InputError(f"voxel {place} lies outside the image of {shape} voxels; indices count from 0")


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return result
