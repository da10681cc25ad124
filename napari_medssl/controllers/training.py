"""Fine-tuning as another process: start, follow, stop, find again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.errors import InputError
from medssl.jobs.process import RunProcess
from medssl.jobs.progress import Progress
from medssl.volume import Volume
from napari_medssl.controllers.panel import PanelController
from napari_medssl.session import Session

if TYPE_CHECKING:
    from napari_medssl.engine import Engine
    from napari_medssl.orders import TrainingOrder
    from napari_medssl.widgets.training import TrainingWidget
    from napari_medssl.workers import Run

SECONDS_BETWEEN_LOOKS = 0.5
NOBODY = (0, 0.0)
"""Pid and start time of no process: for a run that the command line made."""

Every = Callable[[float, Callable[[], None]], Callable[[], None]]


class TrainingController(PanelController["TrainingWidget"]):
    """Shows one run at a time: the one started here, or the one found at work in the project.

    Args:
        session: shared values.
        widget: the panel.
        engine: writes the run's input and names its command line.
        run: runs the engine's generators.
        every: calls a function again and again; returns what ends that.
        report: shows an error to the user.
        start: starts the process in a run folder.
    """

    def __init__(
        self,
        session: Session,
        widget: TrainingWidget,
        engine: Engine,
        run: Run,
        *,
        every: Every,
        report: Callable[[Exception], None],
        start: Callable[[list[str], Path], RunProcess] = RunProcess.start,
    ) -> None:
        super().__init__(session, widget, engine, run)
        self._every = every
        self._report = report
        self._start_process = start
        self._process: RunProcess | None = None
        self._end_looking: Callable[[], None] | None = None
        self._curves: dict[str, list[tuple[float, float]]] = {}
        widget.startRequested.connect(self.start)
        widget.stopRequested.connect(self.stop)
        session.stroke.connect(lambda _: self._show_cases())
        session.edited.connect(lambda _: self._show_cases())
        session.events.scribbles.connect(lambda _: self._show_cases())
        session.events.project.connect(lambda _: self.find_running())
        self._show_cases()
        self.find_running()

    def start(self) -> None:
        """Write the labels of the project as a training table and start the process."""
        project, volume = self._session.project, self._session.volume
        if project is None or volume is None:
            return
        self._widget.setReady(False)
        settings = self._widget.settings()
        steps = self._engine.order_training(project, settings, volume.spatial_dims)
        self._run(
            steps,
            "Preparing the training",
            self._on_ordered,
            failed=lambda _: self._show_cases(),
            stopped=self._show_cases,
        )

    def stop(self) -> None:
        """Ask the run to finish its step, save and end."""
        if self._process is not None:
            self._process.stop()
            self._widget.setStopping()
            self._widget.setStatus("Stopping after this step…")

    def find_running(self) -> None:
        """Follow the newest run of the project again: a run outlives the viewer."""
        self.close()
        runs = None if self._session.project is None else self._session.project / "runs"
        if runs is None or not runs.is_dir():
            return
        folders = sorted((p for p in runs.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
        if folders:
            self._follow(RunProcess.attach(folders[-1]) or RunProcess(folders[-1], *NOBODY))

    def close(self) -> None:
        """Stop looking; the process goes on."""
        if self._end_looking is not None:
            self._end_looking()
            self._end_looking = None
        self._process = None

    def look(self) -> None:
        """Read what the run said since the last look."""
        process = self._process
        if process is None:
            return
        is_alive = process.is_alive  # first: what is written before its end is then read below
        for event in process.events():
            self._take(event)
        self._widget.setCurves({name: list(points) for name, points in self._curves.items()})
        if not is_alive:
            self._on_end(process)

    def _on_ordered(self, order: TrainingOrder) -> None:
        for note in order.left_out:
            self._report(InputError(f"Training goes on without this scan: {note}"))
        try:
            process = self._start_process(list(order.arguments), order.run)
        except (InputError, OSError) as error:
            self._report(error)
            self._show_cases()
            return
        self._follow(process)

    def _follow(self, process: RunProcess) -> None:
        self.close()
        self._process = process
        self._curves = {}
        self._widget.setRunFolder(str(process.run))
        self._widget.setRunning(True)
        self._widget.setStatus("Starting; the first step takes a while.")
        self._widget.setProgress(0, None, "Starting")
        self._end_looking = self._every(SECONDS_BETWEEN_LOOKS, self.look)
        self.look()

    def _take(self, event: Progress) -> None:
        for name, value in event.metrics.items():
            if name != "loss" and not name.startswith("held_out_"):
                continue  # what tells a user whether it learns, in few lines
            self._curves.setdefault(name, []).append((float(event.step), float(value)))
        self._widget.setProgress(event.step, event.total, event.phase)
        if event.message:
            self._widget.setStatus(event.message)

    def _on_end(self, process: RunProcess) -> None:
        self.close()
        self._widget.setRunning(False)
        self._show_cases()
        if result := self._engine.trained(process.run):
            self._session.run = process.run
            self._widget.setStatus(result)
        else:
            self._widget.setStatus(f"Training ended without a result: {process.last_words() or 'no reason'}")

    def _show_cases(self) -> None:
        scribbles: Volume | None = self._session.scribbles
        self._widget.setReady(scribbles is not None and self._end_looking is None)
        if scribbles is None:
            self._widget.setCases("Label a scan first; all labelled scans of the project are used.")
        else:
            self._widget.setCases("Learns from the labelled scans of this project.")
