"""The Train panel: fine-tune on what is painted, watch the curve, use the result."""

from __future__ import annotations

from collections.abc import Collection

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible, QElidingLabel

from medssl.config.run import RunConfig
from napari_medssl.widgets.config_form import ConfigForm
from napari_medssl.widgets.curve import CurveWidget, Series
from napari_medssl.widgets.save_dialog import SaveDialog


class TrainingWidget(QWidget):
    """Start, stop and follow a fine-tuning run.

    Args:
        model: settings class of the command.
        first: fields that most runs change; shown openly.
        more: further fields, folded away.
        parent: Qt parent.
    """

    startRequested = Signal()
    stopRequested = Signal()
    useRequested = Signal()
    saveRequested = Signal(str)

    def __init__(
        self,
        model: type[RunConfig],
        first: Collection[str],
        more: Collection[str] = (),
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._first = ConfigForm(model, first)
        self._more = ConfigForm(model, more)
        advanced = QCollapsible("More settings")
        advanced.addWidget(self._more)
        advanced.setVisible(bool(more))
        self._cases = QLabel()
        self._cases.setWordWrap(True)
        self._start = QPushButton("Start training")
        self._stop = QPushButton("Stop")
        self._stop.setToolTip("Finish the step, save and end; what was learned stays usable")
        self._bar = QProgressBar()
        self._bar.setTextVisible(True)
        self._curve = CurveWidget()
        self._status = QLabel()
        self._status.setWordWrap(True)
        self._run = QElidingLabel()
        self._use = QPushButton("Use the result")
        self._use.setToolTip("Segment this scan with the trained network")
        self._save = QPushButton("Save segmentation…")

        buttons = QHBoxLayout()
        buttons.addWidget(self._start, 2)
        buttons.addWidget(self._stop, 1)
        results = QHBoxLayout()
        results.addWidget(self._use)
        results.addWidget(self._save)
        layout = QVBoxLayout(self)
        layout.addWidget(self._cases)
        layout.addWidget(self._first)
        layout.addWidget(advanced)
        layout.addLayout(buttons)
        layout.addWidget(self._bar)
        layout.addWidget(self._curve)
        layout.addWidget(self._status)
        layout.addWidget(self._run)
        layout.addLayout(results)
        layout.addStretch()
        self._start.clicked.connect(self.startRequested)
        self._stop.clicked.connect(self.stopRequested)
        self._use.clicked.connect(self.useRequested)
        self._save.clicked.connect(self._ask_save)
        self.setRunning(False)
        self.setUsable(False)
        self.setSavable(False)
        self.setReady(False)
        self.setRunFolder("")

    def settings(self) -> dict[str, object]:
        """The values of all rows, by field name; not yet checked."""
        return {**self._first.values(), **self._more.values()}

    def setSettings(self, config: RunConfig) -> None:
        """Show other settings."""
        self._first.setValue(config)
        self._more.setValue(config)

    def setReady(self, is_ready: bool) -> None:
        """Whether there is something to train on."""
        self._start.setEnabled(is_ready)

    def setRunning(self, is_running: bool) -> None:
        """Whether a run is at work."""
        self._start.setVisible(not is_running)
        self._stop.setVisible(is_running)
        self._stop.setEnabled(is_running)
        self._first.setEnabled(not is_running)
        self._bar.setVisible(is_running)

    def setStopping(self) -> None:
        """The stop was asked for and not reached yet."""
        self._stop.setEnabled(False)

    def setUsable(self, is_usable: bool) -> None:
        """Whether there is a trained network to use."""
        self._use.setEnabled(is_usable)

    def setSavable(self, is_savable: bool) -> None:
        """Whether a network has segmented the scan."""
        self._save.setEnabled(is_savable)

    def setProgress(self, step: int, total: int | None, text: str) -> None:
        """How far the run is."""
        self._bar.setRange(0, total or 0)
        self._bar.setValue(step)
        self._bar.setFormat(f"{text}  %v / %m" if total else text)

    def setCurves(self, curves: dict[str, Series]) -> None:
        """The curves so far, by name."""
        self._curve.setCurves(curves)

    def setCases(self, text: str) -> None:
        """What the run will learn from."""
        self._cases.setText(text)

    def setStatus(self, text: str) -> None:
        """The last word of the run: verdict, error."""
        self._status.setText(text)
        self._status.setVisible(bool(text))

    def setRunFolder(self, folder: str) -> None:
        """Where the run keeps its files."""
        self._run.setText(f"Run: {folder}" if folder else "")
        self._run.setToolTip(folder)
        self._run.setVisible(bool(folder))

    def _ask_save(self) -> None:
        if path := SaveDialog("segmentation", self).ask():
            self.saveRequested.emit(path)
