"""Strokes go to disk, then to the probe; the proposal comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl.errors import InputError
from medssl.store.edits import Edit
from medssl.store.labels import LabelStore
from medssl.store.project import Project
from medssl.volume import Geometry, Volume
from napari_medssl.controllers.panel import PanelController
from napari_medssl.controllers.tally import Tally
from napari_medssl.session import Session

if TYPE_CHECKING:
    from napari_medssl.engine import Engine, Entered
    from napari_medssl.widgets.labelling import LabellingWidget
    from napari_medssl.workers import Run

PROPOSAL = "probe"
_CELL_MM = 5.0


class LabellingController(PanelController["LabellingWidget"]):
    """Owns the label store of the shown volume.

    Every stroke is appended to the journal, and on disk, before this returns to the event loop and so
    before the next stroke can begin. The probe runs later, elsewhere, on a copy.

    Args:
        session: shared values.
        widget: the panel.
        engine: enters volumes into the project, fits the probe, writes files.
        run: runs the engine's generators.
        report: shows an error to the user.
    """

    def __init__(
        self,
        session: Session,
        widget: LabellingWidget,
        engine: Engine,
        run: Run,
        *,
        report: Callable[[Exception], None],
    ) -> None:
        super().__init__(session, widget, engine, run)
        self._report = report
        self._store: LabelStore | None = None
        self._copy: Path | None = None
        self._waiting: list[Edit] = []
        self._tally = Tally()
        self._is_automatic = True
        widget.classChosen.connect(self._choose_class)
        widget.classAdded.connect(self.add_class)
        widget.classRenamed.connect(self.rename_class)
        widget.toolChosen.connect(self._choose_tool)
        widget.brushChanged.connect(self._choose_brush)
        widget.autoChanged.connect(self._set_automatic)
        widget.updateRequested.connect(self.update_proposal)
        widget.undoRequested.connect(self.undo)
        widget.redoRequested.connect(self.redo)
        widget.exportRequested.connect(self.export)
        session.events.volume.connect(self._on_volume)
        session.events.project.connect(lambda _: self._on_volume(session.volume))
        session.events.classes.connect(lambda _: self._show_classes())
        session.events.active_class.connect(lambda _: self._show_classes())
        session.events.tool.connect(widget.setTool)
        session.events.brush.connect(widget.setBrush)
        session.events.proposal.connect(lambda proposal: widget.setProposalReady(proposal is not None))
        session.stroke.connect(self._on_stroke)
        session.accepted.connect(self.accept)
        session.undo.connect(self.undo)
        session.redo.connect(self.redo)
        widget.setTool(session.tool)
        widget.setBrush(session.brush)
        self._on_volume(session.volume)

    def close(self) -> None:
        """Release the label store; what the disk refused before is tried once more."""
        if self._store is not None:
            if self._waiting:
                self._write()
            self._store.close()
            self._store = None
        self._waiting = []

    def add_class(self, name: str) -> None:
        """A new class, which becomes the one to paint."""
        try:
            project = self._project()
            added = project.add_class(name)
        except InputError as error:
            self._report(error)
            return
        self._session.classes = project.classes  # with what another window added meanwhile
        self._session.active_class = added.id

    def rename_class(self, class_id: int, name: str) -> None:
        """Give a class another name."""
        if (class_id, name) in {(entry.id, entry.name) for entry in self._session.classes}:
            return
        try:
            if not name:
                raise InputError("a class needs a name")
            project = self._project()
            project.change_class(class_id, name=name)
        except InputError as error:
            self._report(error)
            self._show_classes()
            return
        self._session.classes = project.classes

    def undo(self) -> None:
        """Take back the last stroke, also one of an earlier day."""
        self._step(LabelStore.undo)

    def redo(self) -> None:
        """Bring back the stroke that was taken back last."""
        self._step(LabelStore.redo)

    def accept(self, voxels: list[tuple[int, ...]], class_id: int) -> None:
        """Label one cell around each voxel; voxels that have a label keep it."""
        scribbles, store = self._session.scribbles, self._store
        if scribbles is None or store is None:
            return
        for voxel in voxels:
            box = cell_around(scribbles.geometry, voxel)
            before = scribbles.array[(0, *box)]
            after = np.where(before == 0, class_id, before).astype(before.dtype)
            start = tuple(span.start for span in box)
            edit = Edit.between(before, after, start, class_id=class_id, author="search")
            if edit is None:
                continue
            if not self._append(edit):
                self._waiting.remove(edit)  # it is not on the screen yet, and so it is not awaited
                return
            self._session.edited.emit(edit)

    def update_proposal(self, edit: Edit | None = None) -> None:
        """Fit the probe on the scribbles and segment the whole volume.

        Args:
            edit: the last change; napari tells of a fill before the layer shows it.
        """
        scribbles, store, volume = self._session.scribbles, self._store, self._session.volume
        if scribbles is None or store is None or volume is None:
            return
        if len(self._tally.labelled) < 2:
            self._session.proposal = None  # the labels that it came from are gone
            self._show_status()
            return

        def done(proposal: Volume) -> None:
            if self._session.volume is volume and len(self._tally.labelled) > 1:
                self._session.proposal = proposal

        def keep(proposal: Volume) -> None:
            store.set_proposal(PROPOSAL, proposal.array[0], author=PROPOSAL, source=self._session.encoder)

        snapshot = scribbles.with_array(scribbles.array.copy())
        if edit is not None:
            edit.apply(snapshot.array[0])
        steps = self._engine.probe(volume, snapshot, keep)
        self._run(steps, "Proposal", done, topic="probe")

    def export(self, what: str, path: str) -> None:
        """Write the proposal or the scribbles in the geometry of the scan."""
        self.save(self._session.proposal if what == "proposal" else self._session.scribbles, path)

    def _on_volume(self, volume: Volume | None) -> None:
        self._session.scribbles = self._session.proposal = None  # first: a last change may be recorded yet
        self.close()
        self._copy = None
        self._tally.restart()
        self._widget.setReady(False)
        self._widget.setHistory(False, False)
        self._widget.setSaved("")
        project = self._session.project
        if volume is None or project is None:
            self._widget.setStatus("Open a scan to label it.")
            return
        self._widget.setStatus("Reading the labels of this scan…")

        def done(entered: Entered) -> None:
            if self._session.volume is volume and self._session.project == project:
                self._on_entered(entered, volume)
            else:
                entered.store.close()

        def stopped() -> None:
            if self._session.volume is volume:
                self._widget.setStatus("Labels are off: reading them was cancelled. Open the scan again.")

        steps = self._engine.enter(project, volume, self._session.source)
        self._run(steps, "Reading the labels", done, topic="enter", failed=self._on_refused, stopped=stopped)

    def _on_refused(self, error: Exception) -> None:
        self._widget.setStatus(f"Labels are off: {error}")

    def _on_entered(self, entered: Entered, volume: Volume) -> None:
        self._store = entered.store
        self._tally.restart(entered.counts)
        has_file = self._session.source.path is not None or entered.path.exists()
        self._copy = None if has_file else entered.path
        self._session.classes = entered.classes
        if self._session.active_class not in {entry.id for entry in entered.classes}:
            self._session.active_class = entered.classes[0].id
        self._session.scribbles = volume.with_array(entered.scribbles)
        if entered.proposal is not None and len(self._tally.labelled) > 1:
            self._session.proposal = volume.with_array(entered.proposal)
        self._widget.setReady(True)
        self._widget.setSaved(f"Each stroke is saved to {entered.store.folder}")
        for note in entered.store.journal.notes:
            self._report(InputError(note))
        self._show_classes()
        self._show_status()
        self._keep_scan()

    def _on_stroke(self, edit: Edit) -> None:
        self._append(edit)

    def _append(self, edit: Edit) -> bool:
        """Write one edit; the probe follows. False, and a message, when the disk refuses."""
        if self._store is None:
            return False
        self._waiting.append(edit)
        if not self._write():
            return False
        self._after(edit)
        return True

    def _write(self) -> bool:
        """Write what waits, oldest first; what the disk refuses waits for the next stroke."""
        if self._store is None:
            return False
        try:
            while self._waiting:
                self._store.journal.append(self._waiting[0])
                self._tally.change(self._waiting.pop(0))
        except InputError as error:
            self._widget.setSaved(f"NOT saved: {len(self._waiting)} of the strokes; the next one tries again")
            self._report(error)
            return False
        self._widget.setSaved(f"Each stroke is saved to {self._store.folder}")
        return True

    def _step(self, move: Callable[[LabelStore], object]) -> None:
        if self._store is None or not self._write():
            return
        try:
            change = move(self._store)
        except InputError as error:
            self._report(error)
            return
        if isinstance(change, Edit):
            self._session.edited.emit(change)
            self._tally.change(change)
            self._after(change)

    def _after(self, edit: Edit) -> None:
        self._show_status()
        self._keep_scan()
        if self._is_automatic:
            self.update_proposal(edit)

    def _keep_scan(self) -> None:
        """A scan that came without a file gets one in the project once it is labelled: training reads it."""
        volume, copy = self._session.volume, self._copy
        if volume is not None and copy is not None and self._tally.labelled:
            self._copy = None

            def again(_: object = None) -> None:
                if self._session.volume is volume:
                    self._copy = copy  # the next stroke tries again

            steps = self._engine.keep(volume, copy)
            self._run(steps, "Keeping the scan", lambda _: None, failed=again, stopped=again)

    def _project(self) -> Project:
        if self._session.project is None:
            raise InputError("choose a project folder first")
        return Project.open_or_create(self._session.project)

    def _show_classes(self) -> None:
        rows = [(entry.id, entry.name, entry.colour) for entry in self._session.classes]
        self._widget.setClasses(rows, self._session.active_class)

    def _show_status(self) -> None:
        journal = None if self._store is None else self._store.journal
        self._widget.setHistory(bool(journal and journal.can_undo), bool(journal and journal.can_redo))
        self._widget.setStatus(self._tally.words(self._session.classes))

    def _choose_class(self, class_id: int) -> None:
        self._session.active_class = class_id

    def _choose_tool(self, tool: str) -> None:
        if tool == self._session.tool:  # chosen again after another layer was: it must be told again
            self._session.tool = "pan_zoom"
        self._session.tool = tool

    def _choose_brush(self, size: int) -> None:
        self._session.brush = size

    def _set_automatic(self, is_automatic: bool) -> None:
        self._is_automatic = is_automatic
        if is_automatic:
            self.update_proposal()


def cell_around(geometry: Geometry, voxel: tuple[int, ...]) -> tuple[slice, ...]:
    """The box of about one feature cell (5 mm) around a voxel, cut at the edge of the volume."""
    spans = []
    for index, size, spacing in zip(voxel, geometry.shape, geometry.spacing, strict=True):
        reach = int(_CELL_MM / spacing / 2) if geometry.has_spacing else 2
        spans.append(slice(max(0, index - reach), min(size, index + reach + 1)))
    return tuple(spans)
