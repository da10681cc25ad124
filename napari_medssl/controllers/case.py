"""Opening a scan: read, choose a series, name the modality, set the window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl.errors import InputError
from medssl.io.axes import orientation_code
from medssl.volume import Geometry, Volume
from napari_medssl.controllers.panel import PanelController
from napari_medssl.controllers.windows import PRESETS, first_limits, preset_limits
from napari_medssl.session import Session, Source

if TYPE_CHECKING:
    from napari_medssl.engine import Engine, Opened
    from napari_medssl.widgets.case import CaseWidget
    from napari_medssl.workers import Run

_PERPENDICULAR = 0.02  # degrees; less is rounding in the file


class CaseController(PanelController["CaseWidget"]):
    """Fills the session with the chosen scan and tells the panel what it is.

    Args:
        session: shared values.
        widget: the panel.
        engine: reads files.
        run: runs the engine's generators.
        volume_of_layer: gives the volume that a layer of this name shows, or what reads it where that takes
            long.
        report: shows an error to the user.
    """

    def __init__(
        self,
        session: Session,
        widget: CaseWidget,
        engine: Engine,
        run: Run,
        *,
        volume_of_layer: Callable[[str], tuple[Volume | Callable[[], Volume], Source]],
        report: Callable[[Exception], None],
    ) -> None:
        super().__init__(session, widget, engine, run)
        self._volume_of_layer = volume_of_layer
        self._report = report
        widget.openRequested.connect(self.open)
        widget.layerChosen.connect(self.take_layer)
        widget.seriesChosen.connect(self.choose_series)
        widget.modalityChosen.connect(self.set_modality)
        widget.windowChosen.connect(self.set_window)
        widget.projectRequested.connect(self.set_project)
        session.events.volume.connect(self._show)
        session.events.project.connect(self._show_project)
        self._show_project(session.project)
        self._show(session.volume)

    def open(self, path: str, series: str = "") -> None:
        """Read a file or a DICOM folder and show it."""
        name = Path(path).name
        self._run(self._engine.open(Path(path), series), f"Opening {name}", self._on_opened, topic="open")

    def choose_series(self, series: str) -> None:
        """Read another series of the same folder."""
        source = self._session.source
        if source.path is not None and series != source.series:
            self.open(str(source.path), series)

    def take_layer(self, name: str) -> None:
        """Work on a layer of the viewer."""
        if not name:
            return
        try:
            volume, source = self._volume_of_layer(name)
        except InputError as error:
            self._report(error)
            return
        if isinstance(volume, Volume):
            self._take(volume, source)
            return
        steps = self._engine.read_layer(volume)
        self._run(steps, f"Reading {name}", lambda read: self._take(read, source), topic="open")

    def _take(self, volume: Volume, source: Source) -> None:
        self._widget.setSeries((), "")
        self.show(volume, source)

    def set_modality(self, modality: str) -> None:
        """The user knows better what was measured; intensities are normalised anew."""
        volume = self._session.volume
        if volume is not None and volume.modality != modality:
            self.show(replace(volume, modality=modality), self._session.source)

    def set_window(self, name: str) -> None:
        """Apply a preset."""
        self._session.window = None  # chosen again after the contrast was dragged: it must be told again
        self._session.window = preset_limits(name)

    def set_project(self, folder: str) -> None:
        """Keep labels and runs in another folder."""
        path = Path(folder)
        if path.exists() and not path.is_dir():
            self._report(InputError(f"{path}: not a folder; choose another project folder"))
            return
        self._session.project = path

    def _on_opened(self, opened: Opened) -> None:
        self._widget.setSeries(opened.series, opened.chosen)
        self.show(opened.volume, Source(path=opened.path, series=opened.chosen))

    def show(self, volume: Volume, source: Source) -> None:
        """Make a volume the one that all panels work on; what belongs to the last one goes."""
        session = self._session
        session.leaving.emit()
        session.prototypes = session.proposal = session.segmentation = session.scribbles = None
        session.detections = None
        session.source = source
        session.volume = volume
        session.window = None
        if not source.layer:  # the contrast of a layer that was there already is its owner's
            session.window = first_limits(volume)

    def _show(self, volume: Volume | None) -> None:
        self._widget.setModality("" if volume is None else volume.modality)
        is_ct = volume is not None and volume.modality == "CT"
        self._widget.setWindows(tuple(PRESETS) if is_ct else (), "Soft tissue" if is_ct else "")
        self._widget.setGeometryRows(() if volume is None else describe(volume))
        self._widget.setNotes(() if volume is None else volume.notes)

    def _show_project(self, folder: Path | None) -> None:
        self._widget.setProject("" if folder is None else str(folder))


def describe(volume: Volume) -> list[tuple[str, str]]:
    """What a person wants to know about the grid, as (name, value)."""
    geometry = volume.geometry
    unit = " mm" if geometry.has_spacing else " (no physical size)"
    rows = [
        (
            "Voxels" if geometry.ndim == 3 else "Pixels",
            f"{_by(geometry.shape)}  ({', '.join('zyx'[-geometry.ndim :])})",
        ),
        ("Spacing", _by(geometry.spacing) + unit),
    ]
    if geometry.has_spacing:
        rows.append(("Extent", f"{_by(tuple(round(s) for s in geometry.size_mm))} mm"))
    if geometry.ndim == 3:
        tilt = tilt_degrees(geometry)
        oblique = f", oblique by {tilt:.1f}°" if tilt > _PERPENDICULAR else ""
        rows.append(("Axes run to", f"{orientation_code(geometry)}{oblique}"))
    low, high = float(np.min(volume.array)), float(np.max(volume.array))
    rows.append(("Values", f"{low:g} to {high:g}" + (" HU" if volume.modality == "CT" else "")))
    return rows


def _by(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def tilt_degrees(geometry: Geometry) -> float:
    """Largest angle between an array axis and the body axis it follows, degrees."""
    cosines = np.abs(np.asarray(geometry.direction)).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines, 0, 1))).max())
