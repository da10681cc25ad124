"""Many caches as one: a list of caches whose volumes are numbered through.

A collection too large for one `medssl prepare` is prepared in parts, on as many machines as there are, and
named in a text file that ends with ``.caches``: one cache folder per line, relative to the file; empty lines
and lines that begin with ``#`` do not count.

Nothing is listed and no path is kept per volume. Volume ``i`` of the list is volume ``i - first[k]`` of part
``k``, found by bisection; its record is read from the part's ``entries.npy`` when it is drawn. In memory are
the columns that the sampler asks for (at most 4 bytes per volume each) and a few open parts.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from medssl.config.prepare import CacheConfig
from medssl.data.cache import Cache, is_cache, read_settings
from medssl.data.records import ENTRY, NAMES, read_entries
from medssl.errors import InputError

SUFFIX = ".caches"
_OPEN = 32
"""Parts that are kept open."""


def is_prepared(path: Path) -> bool:
    """Whether ``path`` is a cache or a list of caches."""
    return path.suffix == SUFFIX or is_cache(path)


def open_cache(path: Path) -> Cache:
    """Open a cache, or a list of caches as one.

    Raises:
        InputError: not a cache; for a list, which part and why.
    """
    return CacheSet.open(path) if path.suffix == SUFFIX else Cache.open(path)


class CacheSet(Cache):
    """Several caches, read like one.

    Subjects have numbers but no names here: parts share no subject, and a hundred million names do not
    belong into memory.

    Args:
        path: the list.
        records: of all parts.
        names: texts of all parts together for each of `NAMES` but the subject.
        config: settings of the parts.
    """

    def __init__(
        self, path: Path, records: _Records, names: dict[str, list[str]], config: CacheConfig
    ) -> None:
        super().__init__(path, cast("NDArray[np.void]", records), names, config)
        self._records = records

    @classmethod
    def open(cls, folder: Path) -> CacheSet:
        """Open a list of caches.

        Raises:
            InputError: the list is empty or unreadable, or a part is no cache, is named twice, or was
                prepared with other settings.
        """
        parts = _listed(folder)
        config = read_settings(parts[0])
        counts: list[int] = []
        texts: dict[str, list[list[str]]] = {name: [] for name in (*NAMES, "label") if name != "subject"}
        for part in parts:
            if read_settings(part) != config:
                raise InputError(
                    f"{folder}: {part} was prepared with other settings than {parts[0]}; prepare it again"
                )
            cache = Cache.open(part)  # closed again: its names of subjects go with it
            counts.append(len(cache))
            for name, found in texts.items():
                found.append(cache.names.get(name, []))
        names = {name: sorted({t for part in found for t in part}) for name, found in texts.items()}
        names["label"].sort(key=int)
        places = {name: {text: i for i, text in enumerate(known)} for name, known in names.items()}
        numbers = {
            name: [np.array([places[name][text] for text in part], np.int64) for part in found]
            for name, found in texts.items()
            if name in NAMES
        }
        records = _Records(parts, np.concatenate([[0], np.cumsum(counts)]), numbers, config)
        return cls(folder, records, names, config)

    def shape(self, row: int) -> tuple[int, int, int]:
        """Voxels per axis of one volume."""
        cache, local = self._records.locate(row)
        return cache.shape(local)

    def read(self, row: int, start: tuple[int, ...], size: tuple[int, ...]) -> NDArray[np.float32]:
        """A box of one volume, in [0, 1]."""
        cache, local = self._records.locate(row)
        return cache.read(local, start, size)

    def read_label(self, row: int, start: tuple[int, ...], size: tuple[int, ...]) -> NDArray[np.int16] | None:
        """Mask values in a box of one volume, -1 unlabelled; None where the volume has no mask."""
        cache, local = self._records.locate(row)
        return cache.read_label(local, start, size)


class _Records:
    """The records of all parts behind the face of one structured array.

    ``records["split"]`` is a whole column, ``records[rows]`` a few records, ``records[row]`` one of them;
    numbers stand for the names of the whole list.

    Args:
        parts: cache folders.
        first: (P + 1,) number of the first volume of each part, and of all.
        numbers: by name and part: number in the part -> number in the list.
        config: settings of the parts.
    """

    dtype = ENTRY

    def __init__(
        self,
        parts: Sequence[Path],
        first: NDArray[np.integer],
        numbers: Mapping[str, Sequence[NDArray[np.int64]]],
        config: CacheConfig,
    ) -> None:
        self._parts = tuple(parts)
        self._first = first
        self._numbers = numbers
        self._config = config
        self._open: OrderedDict[int, Cache] = OrderedDict()
        self._lock = Lock()  # crops are read ahead on threads

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, key: str | int | NDArray[np.integer]) -> Any:
        if isinstance(key, str):
            return self._column(key)
        rows = np.atleast_1d(np.asarray(key))
        found = np.zeros(len(rows), ENTRY)
        owners = self._owner(rows)
        for part in np.unique(owners):
            mine = owners == part
            self._copy(int(part), rows[mine] - self._first[part], found, mine)
        return found[0] if np.ndim(key) == 0 else found

    def locate(self, row: int) -> tuple[Cache, int]:
        """The part that a volume lies in, and its number there."""
        part = int(self._owner(np.asarray(row)))
        return self._part(part), row - int(self._first[part])

    def _owner(self, rows: NDArray[np.integer]) -> NDArray[np.intp]:
        owner: NDArray[np.intp] = np.searchsorted(self._first, rows, side="right") - 1
        return owner

    def _column(self, name: str) -> NDArray[Any]:
        column = np.zeros(len(self), ENTRY[name])
        for number, part in enumerate(self._parts):
            rows = slice(int(self._first[number]), int(self._first[number + 1]))
            # read, not mapped: a part's records are gone when the next one's come
            entries = _entries(part, is_mapped=False)
            if name in (entries.dtype.names or ()):
                column[rows] = self._translated(number, name, entries[name])
        return column

    def _copy(
        self, part: int, local: NDArray[np.integer], found: NDArray[np.void], where: NDArray[np.bool_]
    ) -> None:
        records = self._part(part).entries[local]
        for name in ENTRY.names or ():
            if name in (records.dtype.names or ()):
                found[name][where] = self._translated(part, name, records[name])

    def _translated(self, part: int, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Numbers of a part as numbers of the whole list."""
        if name == "subject":  # subjects of a part are fewer than its volumes
            return values + np.uint32(self._first[part])
        return self._numbers[name][part][values] if name in self._numbers else values

    def _part(self, number: int) -> Cache:
        with self._lock:
            known = self._open.get(number)
            if known is None:
                folder = self._parts[number]
                entries = _entries(folder, is_mapped=True)
                known = self._open[number] = Cache(folder, entries, {}, self._config)
                if len(self._open) > _OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(number)
            return known


def _listed(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of caches: {error}") from error
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise InputError(f"{path}: names no cache; write one cache folder per line")
    parts = [path.parent / name for name in names]
    seen: set[Path] = set()
    for name, part in zip(names, parts, strict=True):
        place = Path(os.path.normpath(part))  # not through links: a link may stand for a copy
        if place in seen:
            raise InputError(f"{path}: names {name} twice; its volumes would count double")
        seen.add(place)
        if not is_cache(part):
            raise InputError(f"{path}: {part} is no cache; run medssl prepare --out {part}")
    return parts


def _entries(folder: Path, *, is_mapped: bool) -> NDArray[np.void]:
    path = folder / "entries.npy"
    try:
        records = read_entries(folder, is_mapped=is_mapped)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run medssl prepare to its end") from error
    if records is None:
        raise InputError(f"{path}: is absent or older than the index; run medssl prepare to its end")
    return records
