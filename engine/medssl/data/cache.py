"""The training cache on disk: normalised volumes in chunks, and what is known about each.

    cache.json         settings it was prepared with
    index.jsonl        one line per volume, appended when its voxels are on disk: the truth; a later line
                       of the same source replaces it, one with "gone" takes the volume out
    entries.npy        the same as fixed-size records, memory-mapped by readers (`medssl.data.records`)
    shard-00000.bin    chunked voxels (`medssl.data.chunks`), one volume after the other
    labels-00000.bin   one byte per voxel of the shard, where masks are kept: value, 255 unlabelled

A killed `prepare` loses at most the volume being written: bytes beyond the last line of the index are
overwritten, and a torn last line is dropped.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from medssl.config.prepare import CacheConfig
from medssl.data.chunks import chunk_shape, read_box, to_chunks
from medssl.data.records import (
    Names,
    compile_records,
    read_entries,
    read_names,
    record_size,
    write_records,
)
from medssl.errors import InputError
from medssl.store.atomic import naming, write_atomically

FORMAT = "medssl-cache-1"
SHARD_BYTES = 1 << 31
_REMEMBERED = 4096  # volumes whose place is kept at hand
_ALIGN = 64  # volumes begin on a cache line; a whole page for each would multiply a cache of small images

UNLABELLED = 255
_SCALE = {"uint8": 255.0, "int16": 32767.0, "float16": 1.0}


def encode(values: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """Voxels in [0, 1] as they are stored; the error is at most half a step of ``dtype``."""
    if dtype == "float16":
        return values.astype(np.float16)
    steps: NDArray[np.generic] = np.rint(values * np.float32(_SCALE[dtype])).astype(dtype)
    return steps


def decode(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """The inverse of `encode`."""
    floats = values.astype(np.float32)
    if values.dtype.kind != "f":
        floats *= np.float32(1 / _SCALE[values.dtype.name])
    return floats


class CacheWriter:
    """Appends volumes to a cache; opens an unfinished one and goes on.

    Args:
        folder: cache folder, made if absent.
        config: settings of the cache.

    ``nbytes`` is what the volumes in it take on disk, with their masks and their lines in the index; what was
    replaced or taken out is not counted, though it still has its place.

    Raises:
        InputError: the folder holds a cache of other settings, or something else.
    """

    def __init__(self, folder: Path, config: CacheConfig) -> None:
        make_folder(folder, config)
        self.folder = folder
        self.config = config
        self._item = np.dtype(config.dtype).itemsize
        lines = _read_lines(folder, mend=True)
        self.lines = _present(lines)
        self.nbytes = sum(self.size(line) for line in self.lines.values())
        # behind those that are gone too: whoever reads while this writes may still look there
        last = max(lines, key=lambda line: (line["shard"], line["offset"]), default=None)
        self._next = (0, 0) if last is None else self._after(last)

    def versions(self) -> dict[str, str]:
        """What is in the cache: source id -> version of the source file."""
        return {source: line["version"] for source, line in self.lines.items()}

    def add(
        self, values: NDArray[np.float32], facts: dict[str, Any], label: NDArray[np.uint8] | None = None
    ) -> None:
        """Write one volume and then its line.

        Args:
            values: (z, y, x) in [0, 1]; an image has z = 1.
            facts: source, version, ndim, spacing (3 numbers, mm) and `medssl.data.records.NAMES` as text
                (several classes with ``;`` between them).
            label: (z, y, x) mask value, 255 unlabelled; None without a mask.
        """
        line = self.line(values.shape, facts, label)
        name, offset = f"{line['shard']:05d}.bin", line["offset"]
        _write(self.folder / f"shard-{name}", offset, encode(values, self.config.dtype))
        if label is not None:
            _write(self.folder / f"labels-{name}", offset // self._item, label)
        self._append(line)
        replaced = self.lines.get(line["source"])
        self.nbytes += self.size(line) - (0 if replaced is None else self.size(replaced))
        self.lines[line["source"]] = line
        self._next = self._after(line)

    def line(
        self, shape: tuple[int, ...], facts: dict[str, Any], label: NDArray[np.uint8] | None
    ) -> dict[str, Any]:
        """What `add` would write into the index for a volume of this shape, with its place."""
        shard, offset = self._next
        line = {**facts, "shape": list(shape), "shard": shard, "offset": offset}
        if label is not None:
            line["labels"] = [int(value) for value in np.unique(label) if value != UNLABELLED]
        return line

    def size(self, line: dict[str, Any]) -> int:
        """Bytes on disk that the volume of a line takes: voxels, mask, the line and its record."""
        voxels = self._padded(line)
        masks = voxels // self._item if "labels" in line else 0
        return voxels + masks + len(json.dumps(line)) + 1 + record_size(line)

    def restate(self, source: str, facts: dict[str, Any]) -> None:
        """Give a volume other facts; its voxels stay where they are."""
        before = self.lines[source]
        line = self.lines[source] = {**before, **facts}
        self.nbytes += self.size(line) - self.size(before)
        self._append(line)

    def remove(self, source: str) -> None:
        """Take a volume out."""
        line = self.lines.pop(source)
        self.nbytes -= self.size(line)
        self._append({**line, "gone": True})

    def _append(self, line: dict[str, Any]) -> None:
        path = self.folder / "index.jsonl"
        with naming(path), path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def _padded(self, line: dict[str, Any]) -> int:
        """Bytes of the voxels, up to where the next volume may begin."""
        return -(-int(np.prod(line["shape"])) * self._item // _ALIGN) * _ALIGN

    def _after(self, line: dict[str, Any]) -> tuple[int, int]:
        """Shard and offset of the volume that follows ``line``."""
        offset = line["offset"] + self._padded(line)
        return (line["shard"] + 1, 0) if offset >= SHARD_BYTES else (line["shard"], offset)

    def close(self) -> None:
        """Compile the index into the records that readers map."""
        write_records(self.folder, list(self.lines.values()))


class Cache:
    """A prepared cache, read lazily: opening costs the same for ten volumes and ten million.

    Args:
        folder: cache folder.
        entries: (N,) records of `medssl.data.records.ENTRY`.
        names: texts for each of `medssl.data.records.NAMES`.
        config: settings it was prepared with.
    """

    def __init__(self, folder: Path, entries: NDArray[np.void], names: Names, config: CacheConfig) -> None:
        self.folder = folder
        self.entries = entries
        self.names = names
        self.config = config
        self._dtype = np.dtype(config.dtype)
        self._shards: dict[str, NDArray[np.uint8]] = {}
        self._known: dict[int, tuple[NDArray[np.generic], tuple[int, int, int], tuple[int, ...]]] = {}

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open for reading.

        Raises:
            InputError: not a cache, or an empty one.
        """
        config = read_settings(folder)
        entries = read_entries(folder)
        if entries is not None:
            names = read_names(folder)
        else:  # prepare is under way or was killed before its end: what is there can be used
            entries, names = compile_records(list(_present(_read_lines(folder)).values()))
        if len(entries) == 0:
            raise InputError(f"{folder}: the cache is empty; run medssl prepare again")
        return cls(folder, entries, names, config)

    def __len__(self) -> int:
        return len(self.entries)

    def column(self, name: str) -> list[str]:
        """The texts behind one of `medssl.data.records.NAMES`, in the order of their numbers."""
        return self.names[name]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of volumes, sorted; what the columns of `class_targets` stand for."""
        return tuple(sorted({part for text in self.names["class"] for part in text.split(";") if part}))

    @property
    def label_values(self) -> tuple[int, ...]:
        """Mask values that occur, ascending."""
        return tuple(int(value) for value in self.names.get("label", ()))

    def class_targets(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """(N, K) for volumes (N,): 1 for each of its classes, 0 for the others, -1 where it has none."""
        known = "class" in (self.entries.dtype.names or ())
        numbers = self.entries[rows]["class"] if known else np.zeros(len(rows), np.intp)
        return cast("NDArray[np.int64]", self._class_table[numbers])

    @cached_property
    def _class_table(self) -> NDArray[np.int64]:
        """(texts, K) what `class_targets` says for each text of the column class."""
        texts = [text.split(";") if text else None for text in self.names["class"]]
        rows = [[-1 if text is None else int(name in text) for name in self.classes] for text in texts]
        return np.array(rows, np.int64).reshape(len(texts), -1)

    def shape(self, row: int) -> tuple[int, int, int]:
        """Voxels per axis of one volume; an image has one slice."""
        return self._voxels(row)[1]

    def read(self, row: int, start: tuple[int, ...], size: tuple[int, ...]) -> NDArray[np.float32]:
        """A box of one volume, in [0, 1]; it must lie inside the volume."""
        flat, shape, chunk = self._voxels(row)
        return decode(read_box(flat, shape, chunk, start, size))

    def read_label(self, row: int, start: tuple[int, ...], size: tuple[int, ...]) -> NDArray[np.int16] | None:
        """Mask values in a box of one volume, -1 unlabelled; None where the volume has no mask."""
        entry = self.entries[row]
        if "labelled" not in (self.entries.dtype.names or ()) or not entry["labelled"]:
            return None
        _, shape, chunk = self._voxels(row)
        first = int(entry["offset"]) // self._dtype.itemsize
        flat = self._shard(f"labels-{int(entry['shard']):05d}.bin")[first : first + int(np.prod(shape))]
        values = read_box(flat, shape, chunk, start, size).astype(np.int16)
        values[values == UNLABELLED] = -1
        return values

    def _voxels(self, row: int) -> tuple[NDArray[np.generic], tuple[int, int, int], tuple[int, ...]]:
        """Flat voxels, shape and chunk of a volume; a look into the records costs as much as a small crop."""
        known = self._known.get(row)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            entry = self.entries[row]
            z, y, x = (int(n) for n in entry["shape"])
            offset = int(entry["offset"])
            raw = self._shard(f"shard-{int(entry['shard']):05d}.bin")[
                offset : offset + z * y * x * self._dtype.itemsize
            ]
            known = self._known[row] = (raw.view(self._dtype), (z, y, x), chunk_shape((z, y, x)))
        return known

    def _shard(self, name: str) -> NDArray[np.uint8]:
        if name not in self._shards:
            path = self.folder / name
            try:  # a plain ndarray over the map: slicing np.memmap itself costs several microseconds
                self._shards[name] = np.asarray(np.memmap(path, np.uint8, mode="r")).view(np.ndarray)
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{path}: the cache is damaged ({error}); run medssl prepare again"
                ) from error
        return self._shards[name]


def make_folder(folder: Path, config: CacheConfig) -> None:
    """A cache without volumes, unless there is one.

    Raises:
        InputError: the folder holds a cache of other settings, or something else.
    """
    if is_cache(folder):
        before = read_settings(folder)
        for name in CacheConfig.model_fields:
            if getattr(before, name) != getattr(config, name):
                raise InputError(
                    f"{folder}: holds a cache with {name} = {getattr(before, name)}, not "
                    f"{getattr(config, name)}; choose another --out or remove the folder"
                )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not a cache and not empty; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, "settings": config.model_dump(mode="json")}, indent=1)
    write_atomically(folder / "cache.json", text + "\n")


def is_cache(folder: Path) -> bool:
    """Whether ``folder`` is a training cache."""
    return (folder / "cache.json").is_file()


def read_settings(folder: Path) -> CacheConfig:
    """The settings a cache was prepared with.

    Raises:
        InputError: not a cache of this format.
    """
    path = folder / "cache.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise InputError(
                f"{path}: format {values['format']}, this version reads {FORMAT}; prepare it again"
            )
        return CacheConfig.model_validate(values["settings"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a training cache ({' '.join(str(error).split())})") from error


def _write(path: Path, offset: int, array: NDArray[np.generic]) -> None:
    """The chunks of a volume from ``offset`` on; what followed is cut off."""
    with naming(path), path.open("r+b" if path.exists() else "w+b") as stream:
        stream.seek(offset)
        stream.truncate()
        for chunk in to_chunks(array, chunk_shape(array.shape)):
            stream.write(chunk.data)


def _read_lines(folder: Path, *, mend: bool = False) -> list[dict[str, Any]]:
    """Lines of the index, the last one of each source, without a torn end.

    Args:
        folder: cache folder.
        mend: cut the torn end off the file; whoever only reads leaves it, for it may be on its way.
    """
    path = folder / "index.jsonl"
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if mend and len(whole) < len(text):
        path.write_bytes(whole)
    lines = {line["source"]: line for line in map(json.loads, whole.splitlines())}
    return list(lines.values())


def _present(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Lines by source, without those of volumes that were taken out."""
    return {line["source"]: line for line in lines if not line.get("gone")}
