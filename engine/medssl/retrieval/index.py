"""Vectors of many volumes, searched by inner product."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medssl.errors import InputError
from medssl.retrieval.approximate import approximate_index
from medssl.retrieval.cells import Cells
from medssl.retrieval.library import faiss_library, gpu_count
from medssl.store.atomic import atomic_file, write_atomically
from medssl.store.features import SignatureMismatchError

FORMAT = "medssl-index-1"
EXACT_LIMIT = 1_200_000
"""Up to this many vectors every search is exact; beyond, inverted lists with a measured recall."""

SEPARATION_CELLS = 2.0
"""Hits of one volume lie at least this many cells apart: 16 mm for cells of stride 8 at 1 mm."""

_CANDIDATES = 32  # per hit asked for: about the number of cells in a ball of that radius


@dataclass(frozen=True)
class Hit:
    """A place that resembles the query.

    Args:
        volume: id of the volume.
        voxel: index in that volume, array order.
        mm: LPS world coordinates [x, y, z].
        score: cosine with the query, at most 1.
    """

    volume: str
    voxel: tuple[int, ...]
    mm: tuple[float, ...]
    score: float

    def to_json(self) -> dict[str, Any]:
        """One entry of ``hits.json``."""
        return {
            "volume": self.volume,
            "voxel": list(self.voxel),
            "mm": [round(value, 3) for value in self.mm],
            "score": round(self.score, 6),
        }


class FeatureIndex:
    """Unit vectors with the volume, voxel and world position each belongs to.

    Args:
        dim: length D of the vectors.
        signature: what the vectors were computed with (weights, settings), JSON values; an index is
            only searched and extended with vectors of the same signature.
        exact_limit: number of vectors beyond which search becomes approximate.

    ``recall`` is the measured recall@50 of the search, 1 where it is exact; ``information`` holds JSON
    values that are saved with the index (which weights, by name).
    """

    def __init__(self, dim: int, signature: Mapping[str, Any], *, exact_limit: int = EXACT_LIMIT) -> None:
        self._faiss = faiss_library()
        self.dim = dim
        self.signature: dict[str, Any] = json.loads(json.dumps(signature))
        self.exact_limit = exact_limit
        self.recall = 1.0
        self.information: dict[str, Any] = {}
        self._index: Any = self._faiss.IndexFlatIP(dim)
        self._on_gpu: Any = None
        self._volumes: dict[str, dict[str, Any]] = {}
        self._numbers: dict[str, int] = {}  # volume id -> number in _volume
        self._cell_mm: dict[int, float] = {}  # size of a cell by the number of its volume
        self._volume = np.empty(0, np.int32)  # number of each row's volume, ascending
        self._ids = np.empty(0, np.int64)  # FAISS's id of each row, ascending
        self._voxels: NDArray[np.int32] | None = None
        self._mm: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self._volume)

    @property
    def volumes(self) -> Mapping[str, Mapping[str, Any]]:
        """What is known of each volume in the index (path, content hash, ...), by id."""
        return self._volumes

    @property
    def is_exact(self) -> bool:
        """Whether every search compares with every vector."""
        return isinstance(self._index, self._faiss.IndexFlat)

    def add(self, volume: str, cells: Cells, **information: Any) -> None:
        """Enter a volume; one that is there already is replaced.

        Args:
            volume: id of the volume.
            cells: its vectors and their places.
            **information: JSON values to keep with it.

        Raises:
            ValueError: the vectors do not fit the index.
        """
        count, dim = cells.vectors.shape
        if dim != self.dim:
            raise ValueError(f"vectors of length {dim} do not fit an index of length {self.dim}")
        if len(cells.voxels) != count or len(cells.mm) != count:
            raise ValueError("vectors, voxels and mm must have equal lengths")
        if self._voxels is not None and self._voxels.shape[1] != cells.voxels.shape[1]:
            raise InputError(f"{volume}: images and volumes cannot share an index; make one for each")
        self.remove(volume)
        vectors = np.ascontiguousarray(cells.vectors, np.float32)
        first = int(self._ids[-1]) + 1 if len(self._ids) else 0
        ids = np.arange(first, first + count, dtype=np.int64)
        if self.is_exact:
            self._index.add(vectors)
        else:
            self._index.add_with_ids(vectors, ids)
        number = max(self._numbers.values(), default=-1) + 1
        self._numbers[volume], self._volumes[volume] = number, dict(information)
        self._cell_mm[number] = float(cells.size_mm)
        self._volume = np.concatenate([self._volume, np.full(count, number, np.int32)])
        self._ids = np.concatenate([self._ids, ids])
        self._voxels = _joined(self._voxels, cells.voxels.astype(np.int32))
        self._mm = _joined(self._mm, cells.mm.astype(np.float32))
        self._on_gpu = None
        if self.is_exact and len(self) > self.exact_limit:
            self._index, self.recall = approximate_index(self._index)

    def remove(self, volume: str) -> int:
        """Take a volume out; returns the number of vectors it had, 0 where it was not there."""
        if volume not in self._numbers or self._voxels is None or self._mm is None:
            return 0
        if not self.is_exact:  # the map from ids to lists would not survive; `vectors` makes it anew
            self._index.set_direct_map_type(self._faiss.DirectMap.NoMap)
        number = self._numbers.pop(volume)
        del self._cell_mm[number]
        gone = self._volume == number
        del self._volumes[volume]
        self._index.remove_ids(self._selector(gone))
        kept = ~gone
        self._volume, self._voxels, self._mm = self._volume[kept], self._voxels[kept], self._mm[kept]
        # a flat index closes the gap and counts anew, inverted lists keep the ids they were given
        self._ids = np.arange(len(self._volume)) if self.is_exact else self._ids[kept]
        self._on_gpu = None
        return int(gone.sum())

    def search(
        self,
        query: ArrayLike,
        k: int = 10,
        *,
        volumes: Collection[str] | None = None,
        separation_mm: float | None = None,
    ) -> list[Hit]:
        """The places that resemble the query most, best first.

        Ranked hits are distinct: of hits in one volume closer than ``separation_mm`` to a better one,
        only the better one is kept.

        Args:
            query: (D,) vector, any length.
            k: most hits to return.
            volumes: ids to search in; all by default.
            separation_mm: None takes two cells of the volume; 0 keeps neighbours.

        Raises:
            ValueError: the query does not fit the index.
        """
        vector = np.asarray(query, np.float32).reshape(1, -1)
        if vector.shape[1] != self.dim:
            raise ValueError(
                f"a query of length {vector.shape[1]} does not fit an index of length {self.dim}"
            )
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        wanted = None
        available = len(self)
        if volumes is not None:
            wanted = np.isin(self._volume, [self._numbers[v] for v in volumes if v in self._numbers])
            available = int(wanted.sum())
        fetch = min(available, k if separation_mm == 0 else k * _CANDIDATES)
        while fetch > 0:
            scores, ids = self._nearest(vector, fetch, wanted)
            rows = np.searchsorted(self._ids, ids)
            kept = self._distinct(rows, k, separation_mm)
            if len(kept) == k or fetch == available or len(ids) < fetch:
                return [self._hit(int(rows[i]), float(scores[i])) for i in kept]
            fetch = min(available, fetch * 4)
        return []

    def cell_at(self, volume: str, mm: ArrayLike, within_mm: float) -> NDArray[np.float32] | None:
        """The vector of the indexed cell nearest to a place, None where none is near.

        Args:
            volume: id of the volume.
            mm: LPS world coordinates [x, y, z].
            within_mm: largest distance along any axis.
        """
        if volume not in self._numbers or self._mm is None:
            return None
        number = self._numbers[volume]
        low, high = np.searchsorted(self._volume, np.array([number, number + 1], self._volume.dtype))
        offset = np.abs(self._mm[low:high] - np.asarray(mm, np.float32))
        distance = np.maximum.reduce(list(offset.T), initial=0)  # far faster than max(axis=1) on few columns
        if distance.size == 0 or distance.min() > within_mm:
            return None
        nearest: NDArray[np.float32] = self.vectors(low + distance.argmin(keepdims=True))[0]
        return nearest

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors (N, D) of some rows, in the order in which they were added."""
        if not self.is_exact:
            self._index.set_direct_map_type(self._faiss.DirectMap.Hashtable)
        found: NDArray[np.float32] = np.stack([self._index.reconstruct(int(self._ids[row])) for row in rows])
        return found

    def to_gpu(self, device: int = 0) -> bool:
        """Search on a GPU from now on, until the index changes; False where this build or machine cannot."""
        if gpu_count(self._faiss) <= device:
            return False
        self._on_gpu = self._faiss.index_cpu_to_gpu(self._faiss.StandardGpuResources(), device, self._index)
        return True

    def save(self, folder: Path) -> None:
        """Write the index; a crash leaves the old one.

        Raises:
            InputError: the folder holds an index of another signature.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "index.json").exists():
            _checked(folder, _read_json(folder), self.signature)
        token = uuid.uuid4().hex[:12]  # the new files stand beside the old until index.json names them
        faiss_file, keys_file = f"vectors-{token}.faiss", f"keys-{token}.npz"
        # by path: FAISS's in-memory buffers break where SimpleITK was imported after it (both bring a
        # SWIG type for std::vector and the later one wins)
        try:
            self._faiss.write_index(self._index, str(folder / faiss_file))
        except RuntimeError as error:  # FAISS has one kind of error for everything
            (folder / faiss_file).unlink(missing_ok=True)
            is_full = os.strerror(errno.ENOSPC) in str(error)
            raise OSError(errno.ENOSPC if is_full else errno.EIO, str(error), str(folder)) from error
        n = 3 if self._voxels is None else self._voxels.shape[1]
        with atomic_file(folder / keys_file) as file:
            np.savez(
                file,
                volume=self._volume,
                ids=self._ids,
                voxels=np.empty((0, n), np.int32) if self._voxels is None else self._voxels,
                mm=np.empty((0, n), np.float32) if self._mm is None else self._mm,
            )
        content = {
            "format": FORMAT,
            "signature": self.signature,
            "dim": self.dim,
            "count": len(self),
            "recall_at_50": self.recall,
            "exact_limit": self.exact_limit,
            "information": self.information,
            "vectors": faiss_file,
            "keys": keys_file,
            "volumes": {
                name: {"number": number, "cell_mm": self._cell_mm[number], **self._volumes[name]}
                for name, number in self._numbers.items()
            },
        }
        write_atomically(folder / "index.json", json.dumps(content, indent=1))
        for old in [*folder.glob("vectors-*.faiss"), *folder.glob("keys-*.npz")]:
            if old.name not in (faiss_file, keys_file):
                old.unlink()

    @classmethod
    def load(cls, folder: Path, signature: Mapping[str, Any] | None = None) -> Self:
        """Read an index.

        Args:
            folder: as `save` wrote it.
            signature: refuse any other; None takes what is there.

        Raises:
            SignatureMismatchError: it was made with other weights or settings.
            InputError: no index in the folder, or a damaged one.
        """
        content = _read_json(folder)
        _checked(folder, content, signature)
        try:
            index = cls(content["dim"], content["signature"], exact_limit=content["exact_limit"])
            index._index = index._faiss.read_index(str(folder / content["vectors"]))
            with np.load(folder / content["keys"], allow_pickle=False) as keys:
                index._volume, index._ids = keys["volume"], keys["ids"]
                index._voxels, index._mm = keys["voxels"], keys["mm"]
            index.recall, index.information = content["recall_at_50"], content["information"]
            for name, information in content["volumes"].items():
                number = index._numbers[name] = information.pop("number")
                index._cell_mm[number] = information.pop("cell_mm")
                index._volumes[name] = information
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{folder}: damaged index ({reason}); embed the data again") from error
        if not index._index.ntotal == len(index._volume) == len(index._mm) == content["count"]:
            raise InputError(f"{folder}: damaged index (vectors and keys differ); embed the data again")
        return index

    def _nearest(
        self, vector: NDArray[np.float32], count: int, wanted: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if wanted is None:
            scores, ids = (self._on_gpu or self._index).search(vector, count)
        else:
            selector = self._selector(wanted)
            if self.is_exact:
                parameters = self._faiss.SearchParameters(sel=selector)
            else:
                parameters = self._faiss.SearchParametersIVF(sel=selector, nprobe=self._index.nlist)
            scores, ids = self._index.search(vector, count, params=parameters)
        found = ids[0] >= 0
        return scores[0][found], ids[0][found]

    def _selector(self, rows: NDArray[np.bool_]) -> Any:
        mask = np.zeros(int(self._ids[-1]) + 1, bool)
        mask[self._ids[rows]] = True
        return self._faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))

    def _distinct(self, rows: NDArray[np.int64], k: int, separation_mm: float | None) -> list[int]:
        """Positions in ``rows`` (best first) that survive the suppression of close neighbours."""
        if separation_mm == 0 or self._mm is None:
            return list(range(min(k, len(rows))))
        volume, mm = self._volume[rows], self._mm[rows]
        alive = np.ones(len(rows), bool)
        kept: list[int] = []
        while len(kept) < k and alive.any():
            best = int(alive.argmax())
            kept.append(best)
            radius = separation_mm or SEPARATION_CELLS * self._cell_mm[int(volume[best])]
            near = np.linalg.norm(mm - mm[best], axis=1) < radius - 1e-3
            alive &= ~(near & (volume == volume[best]))
            alive[best] = False
        return kept

    def _hit(self, row: int, score: float) -> Hit:
        if self._voxels is None or self._mm is None:
            raise ValueError("an empty index has no hits")
        name = next(name for name, number in self._numbers.items() if number == self._volume[row])
        voxel = tuple(int(v) for v in self._voxels[row])
        return Hit(name, voxel, tuple(float(v) for v in self._mm[row]), min(score, 1.0))


def _joined(old: NDArray[Any] | None, new: NDArray[Any]) -> NDArray[Any]:
    return new if old is None else np.concatenate([old, new])


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: no index in this folder; build one (Build index in the viewer, or medssl embed)"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: damaged index ({error}); embed the data again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{folder}: an index of format {FORMAT} is needed; embed the data again")
    return content


def _checked(folder: Path, content: Mapping[str, Any], signature: Mapping[str, Any] | None) -> None:
    if signature is None:
        return
    expected = json.loads(json.dumps(signature))
    if content["signature"] != expected:
        names = sorted({*content["signature"], *expected})
        parts = [name for name in names if content["signature"].get(name) != expected.get(name)]
        raise SignatureMismatchError(
            f"{folder}: this index was made with another {' and '.join(parts)}; "
            "choose another folder or embed the data again"
        )
