"""The labels of one volume: masks, points and boxes, and who or what made each."""

from __future__ import annotations

import time as clock
import uuid
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from medssl.errors import InputError
from medssl.store.archive import DAMAGE, read_archive, write_archive
from medssl.store.edits import SCRIBBLES, Annotation, AnnotationEdit, Change
from medssl.store.journal import Journal
from medssl.store.project import Project


class Origin(BaseModel):
    """Who or what made a proposal, from what, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    author: str = Field(description='"probe", "network", a person')
    source: str = Field(default="", description="weights, run or file it came from")
    time: float = Field(description="seconds since 1970, UTC")


def voxels_by_value(mask: NDArray[Any]) -> dict[int, int]:
    """How many voxels hold each value of a mask (values 0 to 255), slice by slice: nothing is sorted."""
    counts = np.zeros(256, np.int64)
    for part in mask:
        counts += np.bincount(np.ravel(part), minlength=256)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


class LabelStore:
    """What is known about one volume, on its native grid.

    Scribbles, points and boxes are edits in the `journal`: each is on disk before the next begins.
    Proposals are whole masks that a program made; they are replaced as a whole, with their origin.

    Args:
        project: the project that knows the volume.
        volume_id: its id there.

    Raises:
        InputError: no such volume, or its files are damaged.
    """

    def __init__(self, project: Project, volume_id: str) -> None:
        entry = project.volume(volume_id)
        self.volume_id = entry.id
        self.shape = entry.shape
        self.folder = project.labels_folder(volume_id)
        self.journal = Journal(self.folder, self.shape)

    def restore(self, mask: str = SCRIBBLES) -> NDArray[np.uint8]:
        """A journalled mask (*shape) as the edits left it: 0 unlabelled, 1..C classes."""
        return self.journal.restore(mask)

    def undo(self) -> Change | None:
        """Take back the last edit; the change to show, or None."""
        return self.journal.undo()

    def redo(self) -> Change | None:
        """Bring back what was taken back last; the change to show, or None."""
        return self.journal.redo()

    def close(self) -> None:
        """Release the files; the store may be used again afterwards."""
        self.journal.close()

    def proposals(self) -> tuple[str, ...]:
        """Names of the proposals on disk."""
        return tuple(sorted(path.stem for path in (self.folder / "proposals").glob("*.zip")))

    def set_proposal(self, name: str, mask: NDArray[Any], author: str, source: str = "") -> Origin:
        """Keep a mask that a program made, in place of the one of the same name.

        Args:
            name: "probe", "network" or another file name.
            mask: (*shape) integers 0 to 255.
            author: what made it.
            source: weights, run or file it came from.

        Raises:
            InputError: the mask does not fit the volume, or the disk refuses it.
        """
        if mask.shape != self.shape:
            raise InputError(f"proposal {name}: its shape is {mask.shape}, the volume's is {self.shape}")
        if mask.dtype.kind not in "iub" or mask.min() < 0 or mask.max() > 255:
            raise InputError(f"proposal {name}: a mask holds whole numbers from 0 to 255")
        origin = Origin(author=author, source=source, time=clock.time())
        path = self.folder / "proposals" / f"{name}.zip"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_archive(path, origin.model_dump(mode="json"), {"mask": mask.astype(np.uint8)})
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); choose another project folder"
            ) from error
        return origin

    def proposal(self, name: str) -> tuple[NDArray[np.uint8], Origin]:
        """A proposal (*shape) and its origin.

        Raises:
            InputError: there is none of that name, or it is damaged.
        """
        path = self.folder / "proposals" / f"{name}.zip"
        try:
            header, arrays = read_archive(path)
            return arrays["mask"], Origin.model_validate(header)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such proposal; run the probe or a prediction first") from error
        except (OSError, *DAMAGE) as error:
            raise InputError(f"{path}: damaged ({error}); run the probe or prediction again") from error

    def annotations(self, kind: Literal["point", "box"] | None = None) -> tuple[Annotation, ...]:
        """The points and boxes, or those of one kind, in the order in which they were made."""
        return tuple(entry for entry in self.journal.annotations() if kind in (None, entry.kind))

    def add_point(self, position: tuple[float, ...], class_id: int, author: str = "user") -> Annotation:
        """Mark a voxel (z, y, x); it is on disk when this returns.

        Raises:
            InputError: the point lies outside the volume.
        """
        return self._add("point", position, class_id, author, None)

    def add_box(
        self, position: tuple[float, ...], class_id: int, author: str = "user", score: float | None = None
    ) -> Annotation:
        """Mark a half-open box (z0, y0, x0, z1, y1, x1); it is on disk when this returns.

        Raises:
            InputError: the box is empty or leaves the volume.
        """
        return self._add("box", position, class_id, author, score)

    def remove(self, annotation_id: str) -> None:
        """Remove a point or box; it can be brought back by `undo`.

        Raises:
            InputError: there is none with this id.
        """
        for entry in self.annotations():
            if entry.id == annotation_id:
                self.journal.append(AnnotationEdit(entry, None))
                return
        raise InputError(f"no point or box {annotation_id} in volume {self.volume_id}")

    def voxels_per_class(self) -> dict[int, int]:
        """How many voxels are painted with each class."""
        return {value: count for value, count in voxels_by_value(self.restore()).items() if value > 0}

    def _add(
        self,
        kind: Literal["point", "box"],
        position: tuple[float, ...],
        class_id: int,
        author: str,
        score: float | None,
    ) -> Annotation:
        n = len(self.shape)
        low, high = position[:n], position[n:] if kind == "box" else position[:n]
        fits = len(low) == len(high) == n and all(
            -0.5 <= a <= b <= size - (0 if kind == "box" else 0.5)
            for a, b, size in zip(low, high, self.shape, strict=True)
        )
        if not fits or (kind == "box" and any(a >= b for a, b in zip(low, high, strict=True))):
            raise InputError(f"{kind} {position}: empty or outside the volume of {self.shape} voxels")
        entry = Annotation(
            uuid.uuid4().hex[:12], kind, tuple(map(float, position)), class_id, author, clock.time(), score
        )
        self.journal.append(AnnotationEdit(None, entry))
        return entry
