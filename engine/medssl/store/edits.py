"""What a person or a program changed: voxels of a mask, or a point or box."""

from __future__ import annotations

import json
import time as clock
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

SCRIBBLES = "scribbles"
"""Name of the mask the user paints: 0 unlabelled, 1..C classes."""


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of one mask: the values in a box before and after.

    Args:
        start: first voxel of the box per axis, array order.
        before: (*box) integer values before the change.
        after: (*box) values after it, same shape.
        class_id: class that was painted, 0 for the eraser or several classes at once.
        author: who or what made it: "user", "probe", "search", a run.
        time: seconds since 1970, UTC.
        mask: name of the mask.
    """

    start: tuple[int, ...]
    before: NDArray[Any]
    after: NDArray[Any]
    class_id: int = 0
    author: str = "user"
    time: float = 0.0
    mask: str = SCRIBBLES

    def __post_init__(self) -> None:
        if self.before.shape != self.after.shape or self.before.ndim != len(self.start):
            raise ValueError(
                f"start {self.start}, before {self.before.shape} and after {self.after.shape} do not fit"
            )
        if self.before.dtype.kind not in "iu" or self.after.dtype.kind not in "iu":
            raise ValueError(f"masks hold integers, not {self.before.dtype} and {self.after.dtype}")

    @classmethod
    def between(
        cls,
        before: NDArray[Any],
        after: NDArray[Any],
        start: tuple[int, ...] | None = None,
        *,
        class_id: int = 0,
        author: str = "user",
        mask: str = SCRIBBLES,
    ) -> Self | None:
        """The smallest edit that takes ``before`` to ``after``, now; None where nothing changed.

        Args:
            before: (*S) a mask or a part of it.
            after: (*S) the same part later.
            start: index of its first voxel in the mask, 0 for a whole mask.
            class_id: class that was painted.
            author: who or what made the change.
            mask: name of the mask.
        """
        corner = start if start is not None else (0,) * before.ndim
        changed = before != after
        if not changed.any():
            return None
        spans = []
        for axis in range(changed.ndim):
            hit = np.flatnonzero(changed.any(axis=tuple(a for a in range(changed.ndim) if a != axis)))
            spans.append(slice(int(hit[0]), int(hit[-1]) + 1))
        box = tuple(spans)
        first = tuple(int(c) + span.start for c, span in zip(corner, box, strict=True))
        return cls(first, before[box].copy(), after[box].copy(), class_id, author, clock.time(), mask)

    @property
    def box(self) -> tuple[slice, ...]:
        """The slices of the mask that the edit covers."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.before.shape, strict=True))

    def inverse(self) -> Edit:
        """The edit that takes it back."""
        return Edit(self.start, self.after, self.before, self.class_id, self.author, self.time, self.mask)

    def apply(self, array: NDArray[Any]) -> None:
        """Write the values after the edit into a mask (*S), in place."""
        array[self.box] = self.after

    def pack(self) -> tuple[dict[str, Any], bytes]:
        """Header and compressed values for the journal.

        Values below 256 take one byte before compression, so a stroke costs what its classes need.
        """
        top = max(int(self.before.max(initial=0)), int(self.after.max(initial=0)))
        low = min(int(self.before.min(initial=0)), int(self.after.min(initial=0)))
        dtype = np.dtype(np.min_scalar_type(top) if low >= 0 else np.int64).newbyteorder("<")
        values = b"".join(part.astype(dtype, order="C").tobytes() for part in (self.before, self.after))
        header = {
            "kind": "edit",
            "start": list(self.start),
            "shape": list(self.before.shape),
            "dtype": dtype.str,
            "class": self.class_id,
            "author": self.author,
            "time": self.time,
            "mask": self.mask,
        }
        return header, zlib.compress(values, 1)

    @classmethod
    def unpack(cls, header: Mapping[str, Any], body: bytes) -> Self:
        """The inverse of `pack`."""
        values = np.frombuffer(zlib.decompress(body), dtype=np.dtype(header["dtype"]))
        before, after = values.reshape(2, *header["shape"])
        return cls(
            tuple(header["start"]),
            before,
            after,
            header["class"],
            header["author"],
            header["time"],
            header["mask"],
        )


@dataclass(frozen=True)
class Annotation:
    """A point or a box in one volume.

    Args:
        id: unique within the volume.
        kind: "point" or "box".
        position: voxel indices in array order: (z, y, x) of a point; (z0, y0, x0, z1, y1, x1),
            half-open, of a box; without z in 2D.
        class_id: 1..C.
        author: who or what made it.
        time: seconds since 1970, UTC.
        score: confidence of a detector in [0, 1], None for people.
    """

    id: str
    kind: Literal["point", "box"]
    position: tuple[float, ...]
    class_id: int
    author: str = "user"
    time: float = 0.0
    score: float | None = None


@dataclass(frozen=True)
class AnnotationEdit:
    """An annotation added (``before`` None), removed (``after`` None) or changed."""

    before: Annotation | None
    after: Annotation | None

    def __post_init__(self) -> None:
        if self.before is None and self.after is None:
            raise ValueError("an annotation edit needs the annotation before or after it")

    def inverse(self) -> AnnotationEdit:
        """The edit that takes it back."""
        return AnnotationEdit(self.after, self.before)

    def apply(self, annotations: dict[str, Annotation]) -> None:
        """Change a table of annotations by id, in place."""
        if self.before is not None:
            annotations.pop(self.before.id, None)
        if self.after is not None:
            annotations[self.after.id] = self.after

    def pack(self) -> tuple[dict[str, Any], bytes]:
        """Header and body for the journal."""
        sides = {"before": self.before, "after": self.after}
        body = {name: None if side is None else asdict(side) for name, side in sides.items()}
        return {"kind": "annotation"}, json.dumps(body).encode()

    @classmethod
    def unpack(cls, header: Mapping[str, Any], body: bytes) -> Self:
        """The inverse of `pack`."""
        values = json.loads(body)
        return cls(
            *(None if values[side] is None else annotation(values[side]) for side in ("before", "after"))
        )


Change = Edit | AnnotationEdit


def annotation(values: Mapping[str, Any]) -> Annotation:
    """An annotation from its plain values in a file."""
    return Annotation(**{**values, "position": tuple(values["position"])})


def unpack(header: Mapping[str, Any], body: bytes) -> Change:
    """The change that a journal record holds."""
    return Edit.unpack(header, body) if header["kind"] == "edit" else AnnotationEdit.unpack(header, body)
