"""From a click to ranked hits, from a hit to its place, from a place to a label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.store.project import LabelClass
from medssl.volume import Volume
from napari_medssl.session import Hit, Pick, Session
from napari_medssl.widgets.rows import HitRow

if TYPE_CHECKING:
    from napari_medssl.engine import Engine
    from napari_medssl.widgets.search import SearchWidget
    from napari_medssl.workers import Run

COHORT = "cohort"


class SearchController:
    """Searches from a picked voxel, in the shown volume or in the open cohort index.

    Args:
        session: shared values.
        widget: the panel.
        engine: searches and builds indices.
        run: runs the engine's generators.
        open_case: opens the scan at a path, for a hit in another volume.
    """

    def __init__(
        self,
        session: Session,
        widget: SearchWidget,
        engine: Engine,
        run: Run,
        *,
        open_case: Callable[[str], None],
    ) -> None:
        self._session = session
        self._widget = widget
        self._engine = engine
        self._run = run
        self._open_case = open_case
        self._index: Path | None = None
        self._goal: Hit | None = None
        widget.pickToggled.connect(self._set_picking)
        widget.scopeChanged.connect(lambda _: self.search())
        widget.topChanged.connect(lambda _: self.search())
        widget.cohortRequested.connect(self.open_index)
        widget.buildRequested.connect(self.build_index)
        widget.hitChosen.connect(self.jump)
        widget.accepted.connect(self.accept)
        widget.cleared.connect(self.clear)
        session.picked.connect(self._on_picked)
        session.events.picking.connect(lambda picking: widget.setPicking(picking == Pick.QUERY))
        session.events.volume.connect(self._on_volume)
        session.events.hits.connect(self._on_hits)
        session.events.classes.connect(self._on_classes)
        session.events.active_class.connect(lambda _: self._on_classes(session.classes))
        self._on_classes(session.classes)

    def search(self) -> None:
        """Search again from the picked voxel with the options as they stand."""
        volume, voxel = self._session.volume, self._session.query
        if volume is None or voxel is None:
            return
        index = self._index if self._widget.scope() == COHORT else None

        def done(hits: tuple[Hit, ...]) -> None:
            if self._session.volume is volume and self._session.query == voxel:
                self._session.hits = hits

        steps = self._engine.search(volume, voxel, self._widget.top(), index)
        self._run(steps, "Search", done, topic="search")

    def jump(self, line: int) -> None:
        """Go to a hit; a hit in another case opens that case first."""
        hit = self._session.hits[line]
        if self._session.is_here(hit):
            self._session.focus = None  # chosen again after scrolling away: it must be told again
            self._session.focus = hit.voxel
        elif hit.path:
            self._goal = hit
            self._open_case(hit.path)

    def accept(self, lines: list[int], class_id: int) -> None:
        """Make hits of the shown volume labels of a class."""
        hits = [self._session.hits[line] for line in lines]
        voxels = [hit.voxel for hit in hits if self._session.is_here(hit)]
        if voxels:
            self._session.accepted.emit(voxels, class_id)

    def clear(self) -> None:
        """Forget the query and its hits."""
        self._session.query = None
        self._session.hits = ()
        self._session.picking = Pick.NONE
        self._widget.setQuery("No voxel picked yet.")

    def open_index(self, folder: str) -> None:
        """Search in the index of a folder from now on."""

        def done(summary: str) -> None:
            self._index = Path(folder)
            self._widget.setCohort(summary)
            self._widget.setScope(COHORT)
            self.search()

        self._run(self._engine.open_index(Path(folder)), "Opening the index", done, topic="index")

    def build_index(self, folder: str) -> None:
        """Embed all scans of a folder, then open the index."""
        scans, project = Path(folder), self._session.project
        index = (project or scans) / "indices" / scans.name
        steps = self._engine.build_index(scans, index)
        self._run(steps, "Building the index", lambda path: self.open_index(str(path)), topic="index")

    def _set_picking(self, is_picking: bool) -> None:
        self._session.picking = Pick.QUERY if is_picking else Pick.NONE

    def _on_picked(self, voxel: tuple[int, ...], picking: str) -> None:
        if picking == Pick.QUERY:
            self._session.query = voxel
            self._widget.setQuery(f"Query: voxel {', '.join(map(str, voxel))}")
            self.search()

    def _on_volume(self, volume: Volume | None) -> None:
        if self._goal is not None and volume is not None and self._session.is_here(self._goal):
            self._session.focus = self._goal.voxel
            self._goal = None
        else:
            self.clear()

    def _on_hits(self, hits: tuple[Hit, ...]) -> None:
        self._widget.setHits([_row(hit, "" if self._session.is_here(hit) else hit.volume) for hit in hits])

    def _on_classes(self, classes: tuple[LabelClass, ...]) -> None:
        rows = [(entry.id, entry.name, entry.colour) for entry in classes]
        self._widget.setClasses(rows, self._session.active_class)


def _row(hit: Hit, case: str) -> HitRow:
    place = ", ".join(f"{value:.1f}" for value in hit.mm)
    return HitRow(hit.score, case, hit.voxel, f"x, y, z = {place} mm (LPS)")
