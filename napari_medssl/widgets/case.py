"""The Case panel: which scan, where it lies, how it is windowed."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel
from superqt.utils import signals_blocked

_PATTERNS = "*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.dcm *.png *.jpg *.jpeg *.tif *.tiff"
_FILES = f"Scans ({_PATTERNS});;All files (*)"
_MODALITIES = (("unknown", ""), ("CT", "CT"), ("MR", "MR"), ("PET", "PT"))


class CaseWidget(QWidget):
    """Open a scan or take a layer, choose the series and the modality, see the geometry."""

    openRequested = Signal(str)
    layerChosen = Signal(str)
    seriesChosen = Signal(str)
    modalityChosen = Signal(str)
    windowChosen = Signal(str)
    projectRequested = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._file = QPushButton("Open file…")
        self._file.setToolTip("NIfTI, NRRD, MHA, DICOM file, PNG, JPEG or TIFF")
        self._folder = QPushButton("Open DICOM folder…")
        self._folder.setToolTip("A folder with one or several series")
        self._layer = QComboBox()
        self._layer.setToolTip("Work on an image layer of the viewer; the layer itself is never changed")
        self._series = QComboBox()
        self._series_label = QLabel("Series")
        self._modality = QComboBox()
        self._modality.setToolTip("Chooses how intensities are normalised; CT is read in Hounsfield units")
        for text, value in _MODALITIES:
            self._modality.addItem(text, value)
        self._window = QComboBox()
        self._window_label = QLabel("Window")
        self._window.setToolTip("Window width and level in Hounsfield units")
        for box in (self._layer, self._series, self._window):
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(12)
        self._geometry = QFormLayout()
        self._geometry.setVerticalSpacing(2)
        self._card = QGroupBox("Geometry")
        self._card.setLayout(self._geometry)
        self._notes = QLabel()
        self._notes.setWordWrap(True)
        self._project = QElidingLabel()
        self._choose = QPushButton("Change…")
        self._choose.setToolTip("Folder that keeps labels, features and training runs")
        self._arrange()
        self._connect()
        self.setSeries((), "")
        self.setWindows(())
        self.setGeometryRows(())
        self.setNotes(())

    def _arrange(self) -> None:
        buttons = QHBoxLayout()
        buttons.addWidget(self._file)
        buttons.addWidget(self._folder)
        choices = QFormLayout()
        choices.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        choices.addRow("Image layer", self._layer)
        choices.addRow(self._series_label, self._series)
        choices.addRow("Modality", self._modality)
        choices.addRow(self._window_label, self._window)
        project = QHBoxLayout()
        project.addWidget(QLabel("Project"))
        project.addWidget(self._project, 1)
        project.addWidget(self._choose)

        layout = QVBoxLayout(self)
        layout.addLayout(buttons)
        layout.addLayout(choices)
        layout.addWidget(self._card)
        layout.addWidget(self._notes)
        layout.addStretch()
        layout.addLayout(project)

    def _connect(self) -> None:
        self._file.clicked.connect(self._ask_file)
        self._folder.clicked.connect(self._ask_folder)
        self._choose.clicked.connect(self._ask_project)
        self._layer.activated.connect(lambda _: self.layerChosen.emit(self._layer.currentData() or ""))
        self._series.activated.connect(lambda _: self.seriesChosen.emit(self._series.currentData()))
        self._modality.activated.connect(lambda _: self.modalityChosen.emit(self._modality.currentData()))
        self._window.activated.connect(lambda _: self.windowChosen.emit(self._window.currentText()))

    def setLayers(self, names: Sequence[str], current: str) -> None:
        """The image layers of the viewer, and the one in use."""
        with signals_blocked(self._layer):
            self._layer.clear()
            if not current:
                self._layer.addItem("choose a layer" if names else "no image open", "")
            for name in names:
                self._layer.addItem(name, name)
            self._layer.setCurrentIndex(max(0, self._layer.findData(current)))

    def setSeries(self, series: Sequence[tuple[str, str]], current: str) -> None:
        """The series of a DICOM folder as (uid, text); hidden when there is no choice."""
        with signals_blocked(self._series):
            self._series.clear()
            for uid, text in series:
                self._series.addItem(text, uid)
            self._series.setCurrentIndex(max(0, self._series.findData(current)))
        self._series.setToolTip(self._series.currentText())
        self._series.setVisible(len(series) > 1)
        self._series_label.setVisible(len(series) > 1)

    def setModality(self, modality: str) -> None:
        """The modality of the volume: "CT", "MR", "PT" or ""."""
        with signals_blocked(self._modality):
            self._modality.setCurrentIndex(max(0, self._modality.findData(modality)))

    def setWindows(self, names: Sequence[str], current: str = "") -> None:
        """Window presets by name; hidden when there are none."""
        with signals_blocked(self._window):
            self._window.clear()
            self._window.addItems(list(names))
            self._window.setCurrentIndex(max(0, self._window.findText(current)))
        self._window.setVisible(bool(names))
        self._window_label.setVisible(bool(names))

    def setGeometryRows(self, rows: Sequence[tuple[str, str]]) -> None:
        """Facts about the grid as (name, value)."""
        while self._geometry.rowCount():
            self._geometry.removeRow(0)
        for name, value in rows:
            label = QElidingLabel(value)
            label.setToolTip(value)
            self._geometry.addRow(name, label)
        self._card.setVisible(bool(rows))

    def setNotes(self, notes: Sequence[str]) -> None:
        """What was inferred or repaired on reading."""
        self._notes.setText("\n".join(f"• {note}" for note in notes))
        self._notes.setVisible(bool(notes))

    def setProject(self, folder: str) -> None:
        """The project folder."""
        self._project.setText(folder)
        self._project.setToolTip(folder)

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a scan", "", _FILES)
        if path:
            self.openRequested.emit(path)

    def _ask_folder(self) -> None:
        if path := QFileDialog.getExistingDirectory(self, "Open a DICOM folder"):
            self.openRequested.emit(path)

    def _ask_project(self) -> None:
        if path := QFileDialog.getExistingDirectory(self, "Project folder"):
            self.projectRequested.emit(path)
