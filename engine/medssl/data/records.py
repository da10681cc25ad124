"""What is known about each volume of a cache, as one file that readers map: entries.npy.

Fixed-size records come first, so that NumPy maps them; behind them lie the texts that their numbers stand for
and the size of the index that both were compiled from. One file, for two would not fit together after a kill
between them; and where the index has grown since, the file is out of date and the index counts.

Caches of earlier versions keep the texts in names.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.store.atomic import atomic_file, save_array

ENTRY = np.dtype(
    [
        ("shard", "u4"),
        ("offset", "u8"),
        ("ndim", "u1"),
        ("shape", "u4", (3,)),
        ("spacing", "f4", (3,)),
        ("modality", "u2"),
        ("task", "u4"),
        ("group", "u4"),
        ("subject", "u4"),
        ("split", "u1"),
        ("source", "S32"),
        ("class", "u4"),
        ("labelled", "u1"),
    ]
)
"""One volume. Images have shape (1, h, w) and ndim 2; the fields of `NAMES` are positions in their texts."""

NAMES = ("modality", "task", "group", "subject", "split", "class")

_TAIL = Struct("<QQ8s")  # bytes of the index, bytes of the texts, mark
_MARK = b"mednames"

Names = dict[str, list[str]]


def compile_records(lines: Sequence[dict[str, Any]]) -> tuple[NDArray[np.void], Names]:
    """Records and texts of the lines of an index, in the order of their sources."""
    numbers: dict[str, dict[str, int]] = {name: {} for name in NAMES}
    for name in NAMES:
        for text in sorted({line.get(name, "") for line in lines}):
            numbers[name][text] = len(numbers[name])
    entries = np.zeros(len(lines), ENTRY)
    for entry, line in zip(entries, sorted(lines, key=lambda line: line["source"]), strict=True):
        for field in ("shard", "offset", "ndim", "shape", "spacing"):
            entry[field] = line[field]
        for name in NAMES:
            entry[name] = numbers[name][line.get(name, "")]
        entry["source"] = line["source"].encode()
        entry["labelled"] = "labels" in line
    names = {name: list(texts) for name, texts in numbers.items()}
    names["label"] = [str(v) for v in sorted({v for line in lines for v in line.get("labels", ())})]
    return entries, names


def record_size(line: dict[str, Any]) -> int:
    """Bytes in entries.npy for one line of an index, its texts as if no other line shared them."""
    return ENTRY.itemsize + sum(len(json.dumps(line.get(name, ""))) + 2 for name in NAMES)


def write_records(folder: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Compile the whole index of a cache into its records."""
    entries, names = compile_records(lines)
    text = json.dumps(names).encode()
    index = folder / "index.jsonl"
    size = index.stat().st_size if index.exists() else 0
    with atomic_file(folder / "entries.npy") as stream:
        save_array(stream, entries)
        stream.write(text + _TAIL.pack(size, len(text), _MARK))
    (folder / "names.json").unlink(missing_ok=True)  # of an earlier version


def read_entries(folder: Path, *, is_mapped: bool = True) -> NDArray[np.void] | None:
    """The records of a cache; None where there are none, or where its index has grown since.

    Raises:
        OSError, ValueError: the file is damaged.
    """
    path, index = folder / "entries.npy", folder / "index.jsonl"
    if not path.exists():
        return None
    tail = _tail(path)
    if tail is None and not (folder / "names.json").exists():
        return None
    if tail is not None and index.exists() and index.stat().st_size != tail[0]:
        return None
    entries: NDArray[np.void] = np.load(path, mmap_mode="r" if is_mapped else None)
    return entries


def read_names(folder: Path) -> Names:
    """The texts behind the numbers of `read_entries`."""
    path = folder / "entries.npy"
    tail = _tail(path)
    if tail is None:
        text = (folder / "names.json").read_bytes()
    else:
        with path.open("rb") as stream:
            stream.seek(-tail[1] - _TAIL.size, 2)
            text = stream.read(tail[1])
    # caches prepared before there were classes and masks have neither
    names: Names = {"class": [""], **json.loads(text)}
    return names


def _tail(path: Path) -> tuple[int, int] | None:
    """Bytes of the index and of the texts; None in a file of an earlier version."""
    with path.open("rb") as stream:
        if stream.seek(0, 2) < _TAIL.size:
            return None
        stream.seek(-_TAIL.size, 2)
        index, texts, mark = _TAIL.unpack(stream.read())
    return (index, texts) if mark == _MARK else None
