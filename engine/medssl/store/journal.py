"""An append-only log of edits: saving, crash recovery, undo and redo are reads of it.

A record is ``magic, length, CRC-32`` followed by a JSON header line and a body. Records are never
changed. Undo and redo are records too, naming the offset of the edit they take back or bring again,
so the log says what happened in which order. A snapshot beside the log holds the masks after the
first n bytes, so that opening reads only what came later.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import weakref
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.store.archive import DAMAGE, read_archive, write_archive
from medssl.store.atomic import atomic_file, sync_folder
from medssl.store.edits import SCRIBBLES, Annotation, Change, Edit, annotation, unpack
from medssl.store.lock import lock

logger = logging.getLogger(__name__)

_HEAD = struct.Struct("<4sII")
_MAGIC = b"MSJ1"
_SNAPSHOT_EVERY = 200


@dataclass
class _State:
    """The log up to ``end``: masks, annotations, and which edits are done or undone (offsets)."""

    end: int = 0
    masks: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    annotations: dict[str, Annotation] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)


class Journal:
    """The edits of the labels of one volume.

    Opening reads only. Appending takes a lock on the file that other processes respect, and returns
    when the record is on disk. A record cut off by a crash is ignored, said in `notes`, and removed
    before the next append; a damaged tail is kept in a file beside the journal.

    Args:
        folder: where ``journal.bin`` and ``snapshot.zip`` lie; created at the first append.
        shape: voxels per axis of the masks, array order.

    Raises:
        InputError: the files belong to a volume of another shape, or cannot be read.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.folder = folder
        self.shape = shape
        self.notes: list[str] = []
        self._path = folder / "journal.bin"
        self._file: FileIO | None = None
        self._since_snapshot = 0
        self._state = self._load_snapshot() or _State()
        self._replay()

    def append(self, change: Change) -> None:
        """Write one change; it is on disk when this returns.

        Raises:
            InputError: the box leaves the volume, a value exceeds 255, the disk is full, or another
                program has the project open.
        """
        if isinstance(change, Edit):
            self._check(change)
        header, body = change.pack()
        offset = self._write(self._locked(), header, body)
        self._state.done.append(offset)
        self._state.undone.clear()
        self._apply(change)

    def undo(self) -> Change | None:
        """Take back the last change that stands; the change to apply to the screen, or None."""
        file = self._locked()
        if not self._state.done:
            return None
        offset = self._state.done[-1]
        self._write(file, {"kind": "undo", "of": offset}, b"")
        self._state.undone.append(self._state.done.pop())
        inverse = self._read_change(offset).inverse()
        self._apply(inverse)
        return inverse

    def redo(self) -> Change | None:
        """Bring again the change that was taken back last, unless something was changed since."""
        file = self._locked()
        if not self._state.undone:
            return None
        offset = self._state.undone[-1]
        self._write(file, {"kind": "redo", "of": offset}, b"")
        self._state.done.append(self._state.undone.pop())
        change = self._read_change(offset)
        self._apply(change)
        return change

    @property
    def can_undo(self) -> bool:
        """Whether `undo` has something to take back."""
        return bool(self._state.done)

    @property
    def can_redo(self) -> bool:
        """Whether `redo` has something to bring again."""
        return bool(self._state.undone)

    def history(self) -> Iterator[Change]:
        """The changes that stand, oldest first."""
        for offset in tuple(self._state.done):
            yield self._read_change(offset)

    def restore(self, mask: str = SCRIBBLES) -> NDArray[np.uint8]:
        """The values of a mask (*shape) as the edits left it, a copy; zeros if never edited."""
        return self._mask(mask).copy() if mask in self._state.masks else np.zeros(self.shape, np.uint8)

    def annotations(self) -> tuple[Annotation, ...]:
        """The points and boxes that stand."""
        return tuple(self._state.annotations.values())

    def snapshot(self) -> None:
        """Write masks and undo history beside the log, so that the next opening is fast.

        Happens by itself on `close` after many edits; never on the path of a stroke.
        """
        if self._since_snapshot == 0:
            return
        state = self._state
        header = {
            "shape": list(self.shape),
            "end": state.end,
            "done": state.done,
            "undone": state.undone,
            "annotations": [asdict(entry) for entry in state.annotations.values()],
        }
        write_archive(self.folder / "snapshot.zip", header, state.masks)
        self._since_snapshot = 0

    def close(self) -> None:
        """Release the file; a snapshot is written first when there is much to replay."""
        if self._file is None:
            return
        if self._since_snapshot >= _SNAPSHOT_EVERY:
            try:
                self.snapshot()
            except OSError as error:  # it only saves time: the log holds everything
                logger.warning("%s: no snapshot: %s", self.folder, error)
        self._file.close()
        self._file = None

    def _check(self, edit: Edit) -> None:
        inside = len(edit.start) == len(self.shape) and all(
            span.start >= 0 and span.stop <= size for span, size in zip(edit.box, self.shape, strict=True)
        )
        if not inside:
            raise InputError(f"an edit of {edit.before.shape} at {edit.start} leaves the volume {self.shape}")
        values = (edit.before, edit.after)
        if any(part.size and (part.min() < 0 or part.max() > 255) for part in values):
            raise InputError("masks hold classes 0 to 255; use a smaller class number")

    def _mask(self, name: str) -> NDArray[np.uint8]:
        if name not in self._state.masks:
            self._state.masks[name] = np.zeros(self.shape, np.uint8)
        return self._state.masks[name]

    def _apply(self, change: Change) -> None:
        if isinstance(change, Edit):
            change.apply(self._mask(change.mask))
        else:
            change.apply(self._state.annotations)

    def _load_snapshot(self) -> _State | None:
        path = self.folder / "snapshot.zip"
        try:
            header, masks = read_archive(path)
        except FileNotFoundError:
            return None
        except (OSError, *DAMAGE) as error:
            self.notes.append(f"{path}: damaged ({error}); the journal was read from its beginning instead")
            return None
        if tuple(header["shape"]) != self.shape:
            raise InputError(f"{path}: labels of a volume of {header['shape']}, this one has {self.shape}")
        size = self._path.stat().st_size if self._path.exists() else 0
        if size < header["end"]:
            raise InputError(f"{self._path}: shorter than {path.name} says; restore both from one backup")
        entries = {values["id"]: annotation(values) for values in header["annotations"]}
        return _State(header["end"], masks, entries, header["done"], header["undone"])

    def _replay(self) -> None:
        """Follow the log from ``self._state.end`` to its last whole record."""
        state = self._state
        for offset, end, header, body in self._records(state.end):
            if header["kind"] == "undo":
                state.undone.append(state.done.pop())
                self._apply(self._read_change(header["of"]).inverse())
            elif header["kind"] == "redo":
                state.done.append(state.undone.pop())
                self._apply(self._read_change(header["of"]))
            else:
                change = unpack(header, body)
                if isinstance(change, Edit):
                    self._check(change)
                state.done.append(offset)
                state.undone.clear()
                self._apply(change)
            state.end = end
            self._since_snapshot += 1

    def _records(self, start: int) -> Iterator[tuple[int, int, dict[str, Any], bytes]]:
        """Whole records from ``start`` on: (offset, end, header, body)."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            offset = start
            while (payload := _read_payload(file, offset)) is not None:
                end = offset + _HEAD.size + len(payload)
                yield offset, end, *_split(payload)
                offset = end
        if offset < size:
            note = (
                f"{self._path}: the last {size - offset} bytes are not a whole edit (the program or the "
                "machine stopped while writing); everything before them was restored"
            )
            if note not in self.notes:
                self.notes.append(note)

    def _read_change(self, offset: int) -> Change:
        with self._path.open("rb") as file:
            payload = _read_payload(file, offset)
        if payload is None:
            raise InputError(f"{self._path}: the edit at byte {offset} is damaged; it cannot be undone")
        return unpack(*_split(payload))

    def _locked(self) -> FileIO:
        """The log, locked for writing, with its unfinished tail set aside and cut off."""
        if self._file is not None:
            return self._file
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = FileIO(self._path, "r+" if self._path.exists() else "x+")
        except OSError as error:
            raise self._refused(error) from error
        try:
            lock(file)
        except OSError as error:
            file.close()
            raise InputError(f"{self.folder}: open in another window or program; close it there") from error
        try:
            self._replay()  # another program may have written between opening and locking
            self._set_tail_aside(file)
            sync_folder(self.folder)
        except OSError as error:
            file.close()
            raise self._refused(error) from error
        self._file = file
        weakref.finalize(self, file.close)  # releases the lock of a journal that nobody closed
        return file

    def _set_tail_aside(self, file: FileIO) -> None:
        file.seek(self._state.end)
        tail = file.read()
        if tail:
            logger.warning("%s: setting aside %d bytes of an unfinished edit", self._path, len(tail))
            with atomic_file(self.folder / f"unfinished-{self._state.end}.bin") as aside:
                aside.write(tail)
            file.truncate(self._state.end)

    def _refused(self, error: OSError) -> InputError:
        why = error.strerror or str(error)
        return InputError(f"{self.folder}: labels cannot be saved ({why}); choose another project folder")

    def _write(self, file: FileIO, header: dict[str, Any], body: bytes) -> int:
        """Append one record and wait for the disk; its offset."""
        payload = json.dumps(header).encode() + b"\n" + body
        record = _HEAD.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload
        offset = self._state.end
        try:
            file.seek(offset)
            written = 0
            while written < len(record):
                written += file.write(record[written:])
            os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):  # what cannot be cut off is an unfinished edit to the next opening
                file.truncate(offset)
            raise InputError(f"{self._path}: the edit was not saved: {error.strerror}; free space") from error
        self._state.end = offset + len(record)
        self._since_snapshot += 1
        return offset


def _read_payload(file: BinaryIO, offset: int) -> bytes | None:
    """The checked payload of the record at ``offset``, or None where no whole record stands."""
    file.seek(offset)
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    magic, length, checksum = _HEAD.unpack(head)
    if magic != _MAGIC:
        return None
    payload = file.read(length)
    return payload if len(payload) == length and zlib.crc32(payload) == checksum else None


def _split(payload: bytes) -> tuple[dict[str, Any], bytes]:
    head, _, body = payload.partition(b"\n")
    return json.loads(head), body
