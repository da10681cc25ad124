"""From a click to ranked hits, from a hit to its place, from a place to a label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.store.project import LabelClass
from medssl.volume import Volume
from napari_medssl.controllers.panel import PanelController
from napari_medssl.session import Hit, Pick, Session
from napari_medssl.widgets.rows import HitRow

if TYPE_CHECKING:
    from napari_medssl.engine import Engine
    from napari_medssl.widgets.search import SearchWidget
    from napari_medssl.workers import Run

COHORT = "cohort"


@dataclass(frozen=True, eq=False)
class Query:
    """What is searched for: a voxel, and the scan that it lies in, which need not be the shown one."""

    volume: Volume
    place: Hit


class SearchController(PanelController["SearchWidget"]):
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
        super().__init__(session, widget, engine, run)
        self._open_case = open_case
        self._index: Path | None = None
        self._query: Query | None = None
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
        session.events.scribbles.connect(lambda scribbles: widget.setReady(scribbles is not None))
        session.events.classes.connect(self._on_classes)
        session.events.active_class.connect(lambda _: self._on_classes(session.classes))
        self._on_classes(session.classes)

    def search(self) -> None:
        """Search again from the picked voxel with the options as they stand."""
        query, shown = self._query, self._session.volume
        if query is None or shown is None:
            return
        where: Path | Volume | None = None if self._session.is_here(query.place) else shown
        if self._widget.scope() == COHORT and self._index is not None:
            where = self._index

        def done(hits: tuple[Hit, ...]) -> None:
            if self._query is query and (where is self._index or self._session.volume is shown):
                self._session.hits = hits

        steps = self._engine.search(query.volume, query.place.voxel, self._widget.top(), where)
        self._run(steps, "Search", done, topic="search")

    def show(self, voxel: tuple[int, ...], hits: tuple[Hit, ...]) -> None:
        """Show a query in the shown volume and the hits it had."""
        self._ask(voxel)
        self._session.hits = hits

    def jump(self, line: int) -> None:
        """Go to a hit; a hit in another case opens that case first."""
        hit = self._session.hits[line]
        if self._session.is_here(hit):
            self._look_at(hit)
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
        self._query = None
        self._session.query = None
        self._session.hits = ()
        self._session.picking = Pick.NONE
        self._widget.setQuery("Nothing picked yet.")

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
            self._ask(voxel)
            self.search()

    def _ask(self, voxel: tuple[int, ...]) -> None:
        volume, path = self._session.volume, self._session.source.path
        if volume is None:
            return
        place = Hit(volume.id, voxel, (), 1.0, "" if path is None else str(path.resolve()))
        self._query = Query(volume, place)
        self._show_query()

    def _show_query(self) -> None:
        """Mark the query in the image where it lies in the shown volume, else only name it."""
        if self._query is None:
            return
        place = self._query.place
        is_here = self._session.is_here(place)
        self._session.query = place.voxel if is_here else None
        what = "voxel" if len(place.voxel) == 3 else "pixel"
        text = f"Query: {what} {', '.join(map(str, place.voxel))}"
        self._widget.setQuery(text if is_here else f"{text} of {place.volume}")

    def _look_at(self, hit: Hit) -> None:
        self._session.focus = None  # chosen again after scrolling away: it must be told again
        self._session.focus = hit.voxel

    def _on_volume(self, volume: Volume | None) -> None:
        goal, self._goal = self._goal, None
        if goal is None or volume is None or not self._session.is_here(goal):
            self.clear()
            return
        self._show_query()
        hits, self._session.hits = self._session.hits, ()
        self._session.hits = hits  # the same list, but other hits lie in the shown volume now
        if goal in hits:
            self._widget.setChosen(hits.index(goal))
        self._look_at(goal)

    def _on_hits(self, hits: tuple[Hit, ...]) -> None:
        self._widget.setHits([_row(hit, "" if self._session.is_here(hit) else hit.volume) for hit in hits])

    def _on_classes(self, classes: tuple[LabelClass, ...]) -> None:
        rows = [(entry.id, entry.name, entry.colour) for entry in classes]
        self._widget.setClasses(rows, self._session.active_class)


def _row(hit: Hit, case: str) -> HitRow:
    place = ", ".join(f"{value:.1f}" for value in hit.mm)
    is_in_patient = len(hit.voxel) == 3  # a picture has no place there
    return HitRow(hit.score, case, hit.voxel, f"x, y, z = {place} mm (LPS)" if is_in_patient else "")
