"""From the frames of a series to stacks of parallel slices, ordered along their normal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medssl.io.dicom_headers import Frame
from medssl.io.dicom_scan import Series

_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_SAME_DIRECTION = 5e-3
"""Largest difference between direction cosines of parallel slices (a third of a degree)."""
_SAME_PLACE_MM = 0.01
_STACKED = ("CT", "MR", "PT")
"""Modalities whose pictures belong on top of each other even where the files give no positions."""


@dataclass(frozen=True)
class Stack:
    """Parallel slices of one size, from one end of the normal to the other.

    Args:
        uid: SeriesInstanceUID, with ":2", ":3" for the smaller stacks of a series that has several.
        slices: for each position the pictures taken there, in time order.
        offsets: (n,) mm along the normal, increasing.
        orientation: LPS direction along a row and along a column.
        is_placed: whether the files state positions; otherwise the pictures have no place in the patient.
        notes: what was assumed or left out.
    """

    uid: str
    slices: tuple[tuple[Frame, ...], ...]
    offsets: tuple[float, ...]
    orientation: tuple[float, ...]
    is_placed: bool
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Frame:
        """The first picture of the first slice."""
        return self.slices[0][0]

    @property
    def frames(self) -> int:
        """How many complete volumes (times, echoes, b-values) the stack holds."""
        return min(len(pictures) for pictures in self.slices)

    @property
    def voxels(self) -> int:
        """Voxels of one volume."""
        return len(self.slices) * self.first.rows * self.first.columns

    @property
    def axes(self) -> NDArray[np.float64]:
        """(3, 3) rows: unit LPS directions along a row, along a column, along the normal."""
        along = np.asarray(self.orientation[:3], dtype=float)
        along /= np.linalg.norm(along)
        normal = np.cross(along, self.orientation[3:])
        normal /= np.linalg.norm(normal)
        return np.stack([along, np.cross(normal, along), normal])

    @property
    def drift(self) -> NDArray[np.float64]:
        """(n, 2) mm by which each slice begins further along (row, column) than the first one."""
        positions = np.array([pictures[0].position or (0.0, 0.0, 0.0) for pictures in self.slices])
        return np.asarray((positions - positions[0]) @ self.axes[:2].T)


def stacks(series: Series) -> list[Stack]:
    """The stacks of a series, largest first; localisers and stray sizes become stacks of their own."""
    unique = {(frame.instance, frame.index): frame for frame in series.frames}
    copies = len(series.frames) - len(unique)
    notes = (f"duplicate files left out: {copies}",) if copies else ()
    found = [
        stack for group in _parallel(unique.values()) for stack in _ordered(group, series.modality, notes)
    ]
    found.sort(key=lambda stack: -stack.voxels)
    renamed = []
    for rank, stack in enumerate(found, start=1):
        uid = series.uid if rank == 1 else f"{series.uid}:{rank}"
        renamed.append(
            Stack(uid, stack.slices, stack.offsets, stack.orientation, stack.is_placed, stack.notes)
        )
    return renamed


def _parallel(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Frames of equal size, pixel spacing and orientation, and with or without a position."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if _belong_together(group[0], frame):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _belong_together(one: Frame, other: Frame) -> bool:
    return (
        (one.rows, one.columns) == (other.rows, other.columns)
        and (one.position is None) == (other.position is None)
        and _close(one.pixel_spacing, other.pixel_spacing, 1e-3)
        and _close(one.orientation, other.orientation, _SAME_DIRECTION)
    )


def _close(one: Sequence[float] | None, other: Sequence[float] | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def _ordered(group: Sequence[Frame], modality: str, notes: tuple[str, ...]) -> list[Stack]:
    first = group[0]
    orientation = first.orientation or _AXIAL
    if first.position is None:
        return [_without_positions(group, modality, orientation, notes)]
    if first.orientation is None:
        notes = (*notes, "the files state no orientation: taken as axial")
    normal = np.cross(orientation[:3], orientation[3:])
    if np.linalg.norm(normal) > 0:
        normal = normal / np.linalg.norm(normal)
    places = [(float(np.dot(normal, frame.position or ())), frame) for frame in group]
    places.sort(key=lambda place: place[0])
    slices: list[list[Frame]] = []
    offsets: list[float] = []
    for offset, frame in places:
        if offsets and offset - offsets[-1] < _SAME_PLACE_MM:
            slices[-1].append(frame)
        else:
            slices.append([frame])
            offsets.append(offset)
    pictures = tuple(tuple(sorted(frames, key=lambda frame: frame.order)) for frames in slices)
    counts = [len(frames) for frames in pictures]
    if min(counts) != max(counts):
        notes = (
            *notes,
            f"slices have {min(counts)} to {max(counts)} pictures each: the first {min(counts)} are used",
        )
    return [Stack("", pictures, tuple(offsets), orientation, True, notes)]


def _without_positions(
    group: Sequence[Frame], modality: str, orientation: tuple[float, ...], notes: tuple[str, ...]
) -> Stack:
    """Slices in the order of their numbers where that makes sense, otherwise a series of pictures."""
    pictures = tuple(sorted(group, key=lambda frame: frame.order))
    thickness = group[0].thickness
    if modality in _STACKED and len(group) > 1 and thickness is not None:
        note = "the files state no positions: slices are ordered by number, one slice thickness apart"
        offsets = tuple(index * thickness for index in range(len(pictures)))
        return Stack("", tuple((frame,) for frame in pictures), offsets, orientation, True, (*notes, note))
    return Stack("", (pictures,), (0.0,), orientation, False, notes)
