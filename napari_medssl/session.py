"""What the user looks at now: values and signals, no files, no napari, no Qt."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from psygnal import Signal, SignalGroupDescriptor, evented

from medssl.store.edits import Edit
from medssl.store.project import LabelClass
from medssl.volume import Volume
from medssl.volume.regions import Box


@dataclass(frozen=True)
class Source:
    """Where the shown volume came from: a file or folder and a series in it, or a layer."""

    path: Path | None = None
    series: str = ""
    layer: str = ""


@dataclass(frozen=True)
class Hit:
    """One place that looks like the query.

    Args:
        volume: id of its volume.
        voxel: index in array order on that volume's own grid.
        mm: LPS position [x, y, z].
        score: cosine similarity, 1 is equal.
        path: file or folder of its volume, empty for the one shown.
    """

    volume: str
    voxel: tuple[int, ...]
    mm: tuple[float, ...]
    score: float
    path: str = ""


@dataclass(frozen=True)
class Detections:
    """What a detector found in the shown volume.

    Args:
        boxes: best first; none is an answer too.
        model: the weights that found them.
        note: what must be known about these weights.
    """

    boxes: tuple[Box, ...]
    model: str = ""
    note: str = ""


class Pick:
    """What a click into the image means; names of the modes of `Session.picking`."""

    NONE = ""
    QUERY = "query"
    CLUSTER = "cluster"


@evented(events_namespace="events")
@dataclass(eq=False)
class Session:
    """Values that panels and layers share; each has a signal ``events.<name>`` that fires on change.

    Besides the values there are happenings:

    - ``picked(voxel, picking)``: a voxel was clicked, array order, in a mode of `Pick`
    - ``stroke(edit)``: the user painted; the scribbles hold the change already
    - ``edited(edit)``: a change that is on disk already has to be shown in the scribbles
    - ``accepted(voxels, class)``: places that shall become labels
    - ``leaving()``: another scan comes, what belongs to this one goes
    - ``undo()``, ``redo()``: asked for with the scribbles layer selected
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()
    picked: ClassVar[Signal] = Signal(tuple, str)
    stroke: ClassVar[Signal] = Signal(Edit)
    edited: ClassVar[Signal] = Signal(Edit)
    accepted: ClassVar[Signal] = Signal(list, int)
    leaving: ClassVar[Signal] = Signal()
    undo: ClassVar[Signal] = Signal()
    redo: ClassVar[Signal] = Signal()

    project: Path | None = None
    encoder: str = "default"
    device: str = "auto"
    volume: Volume | None = None
    source: Source = field(default_factory=Source)
    window: tuple[float, float] | None = None
    focus: tuple[int, ...] | None = None
    picking: str = Pick.NONE
    prototypes: Volume | None = None
    prototype_opacity: float = 0.45
    solo: int = 0
    query: tuple[int, ...] | None = None
    hits: tuple[Hit, ...] = ()
    classes: tuple[LabelClass, ...] = ()
    active_class: int = 1
    tool: str = "pan_zoom"
    brush: int = 3
    scribbles: Volume | None = None
    proposal: Volume | None = None
    segmentation: Volume | None = None
    detections: Detections | None = None
    run: Path | None = None

    def is_here(self, hit: Hit) -> bool:
        """Whether a hit lies in the shown volume."""
        if self.volume is None:
            return False
        if not hit.path or self.source.path is None:
            return hit.volume == self.volume.id
        is_series = not self.source.series or hit.volume == self.volume.id  # a folder may hold several
        return is_series and Path(hit.path).resolve() == self.source.path.resolve()
