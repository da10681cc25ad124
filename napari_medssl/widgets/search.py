"""The Find panel: places that look like the one that was clicked."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel
from superqt.utils import signals_blocked

from napari_medssl.widgets.rows import HitRow
from napari_medssl.widgets.table import ReadTable, cell, swatch

_COLUMNS = ("#", "Score", "Voxel z, y, x", "Case")
_PLACE, _CASE = 2, 3
THIS_VOLUME, COHORT = "volume", "cohort"


class SearchWidget(QWidget):
    """Click a voxel, read the ranked hits, jump to one, make it a label."""

    pickToggled = Signal(bool)
    scopeChanged = Signal(str)
    topChanged = Signal(int)
    cohortRequested = Signal(str)
    buildRequested = Signal(str)
    hitChosen = Signal(int)
    accepted = Signal(list, int)
    cleared = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._pick = QPushButton("Pick in image")
        self._pick.setCheckable(True)
        self._pick.setToolTip("Then click into the image (shortcut Q): similar places are listed below")
        self._query = QLabel("Nothing picked yet.")
        self._scope, self._class = QComboBox(), QComboBox()
        self._scope.addItem("This scan", THIS_VOLUME)
        self._scope.addItem("Cohort", COHORT)
        self._scope.setToolTip("Search in the shown scan, or in all scans of the opened index")
        self._top = QSpinBox()
        self._top.setRange(1, 500)
        self._top.setValue(20)
        self._top.setToolTip("How many hits to list")
        for box in (self._scope, self._class):
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(8)
        self._cohort = QElidingLabel("no cohort index open")
        self._open = QPushButton("Open index…")
        self._open.setToolTip("Folder written by `medssl embed`")
        self._build = QPushButton("Build index…")
        self._build.setToolTip("Embed all scans of a folder into an index of the project (takes a while)")
        self._table = ReadTable(_COLUMNS, "Click a hit to go there")
        header = self._table.horizontalHeader()
        for column in range(_CASE):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self._is_ready = False
        self._class.setToolTip("Class that accepted hits get")
        self._accept = QPushButton("Accept as label")
        self._accept.setToolTip("Paint one feature cell at every selected hit of this scan (shortcut K)")
        self._accept.setEnabled(False)
        self._clear = QPushButton("Clear")
        self._arrange()
        self._connect()
        self.setCohort("")
        self.setHits(())

    def _arrange(self) -> None:
        options = QFormLayout()
        options.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        options.addRow("Search in", self._scope)
        options.addRow("Hits", self._top)
        cohort = QHBoxLayout()
        cohort.addWidget(self._open)
        cohort.addWidget(self._build)
        bottom = QHBoxLayout()
        bottom.addWidget(self._accept, 1)
        bottom.addWidget(self._class, 1)
        top = QHBoxLayout()
        top.addWidget(self._pick, 1)
        top.addWidget(self._clear)
        layout = QVBoxLayout(self)
        layout.addLayout(top)
        layout.addWidget(self._query)
        layout.addLayout(options)
        layout.addWidget(self._cohort)
        layout.addLayout(cohort)
        layout.addWidget(self._table, 1)
        layout.addLayout(bottom)

    def _connect(self) -> None:
        self._pick.toggled.connect(self.pickToggled)
        self._scope.activated.connect(lambda _: self.scopeChanged.emit(self._scope.currentData()))
        self._top.editingFinished.connect(lambda: self.topChanged.emit(self._top.value()))
        self._open.clicked.connect(self._ask_index)
        self._build.clicked.connect(self._ask_scans)
        self._table.itemSelectionChanged.connect(self._on_selection)
        self._accept.clicked.connect(self.accept)
        self._clear.clicked.connect(self.cleared)

    def top(self) -> int:
        """How many hits are wanted."""
        return self._top.value()

    def scope(self) -> str:
        """ "volume" or "cohort"."""
        return str(self._scope.currentData())

    def accept(self) -> None:
        """Accept the selected hits, or the first one."""
        lines = self._table.chosen()
        if self._accept.isEnabled():
            self.accepted.emit(lines or [0], int(self._class.currentData()))

    def setPicking(self, is_picking: bool) -> None:
        """Whether the next click into the image is the query."""
        with signals_blocked(self._pick):
            self._pick.setChecked(is_picking)

    def setQuery(self, text: str) -> None:
        """What was picked, in words."""
        self._query.setText(text)

    def setCohort(self, text: str) -> None:
        """The open index in words, empty for none."""
        self._cohort.setText(text or "No cohort index open.")
        self._cohort.setToolTip(text)
        self._scope.model().item(1).setEnabled(bool(text))
        if not text:
            with signals_blocked(self._scope):
                self._scope.setCurrentIndex(0)

    def setScope(self, scope: str) -> None:
        """Where to search."""
        with signals_blocked(self._scope):
            self._scope.setCurrentIndex(max(0, self._scope.findData(scope)))

    def setHits(self, rows: Sequence[HitRow]) -> None:
        """The hits, best first."""
        is_picture = bool(rows) and len(rows[0].voxel) == 2
        self._table.horizontalHeaderItem(_PLACE).setText("Pixel y, x" if is_picture else _COLUMNS[_PLACE])
        with signals_blocked(self._table):
            self._table.setRowCount(len(rows))
            for line, row in enumerate(rows):
                texts = (str(line + 1), f"{row.score:.3f}", ", ".join(map(str, row.voxel)), row.case)
                for column, text in enumerate(texts):
                    item = cell(text, is_number=column < 2)
                    item.setToolTip(f"{row.case}  {row.mm}".strip())
                    self._table.setItem(line, column, item)
            self._table.clearSelection()
        self._table.setColumnHidden(_CASE, not any(row.case for row in rows))
        self._on_enabled()

    def setChosen(self, line: int) -> None:
        """The hit that is looked at."""
        with signals_blocked(self._table):
            self._table.selectRow(line)

    def setReady(self, is_ready: bool) -> None:
        """Whether the shown scan can take labels."""
        self._is_ready = is_ready
        self._on_enabled()

    def setClasses(self, classes: Sequence[tuple[int, str, tuple[int, int, int]]], current: int) -> None:
        """The label classes as (id, name, colour)."""
        with signals_blocked(self._class):
            self._class.clear()
            for number, name, colour in classes:
                self._class.addItem(swatch(colour), name, number)
            self._class.setCurrentIndex(max(0, self._class.findData(current)))
        self._on_enabled()

    def _on_enabled(self) -> None:
        has_both = self._class.count() > 0 and self._table.rowCount() > 0
        self._accept.setEnabled(self._is_ready and has_both)

    def _on_selection(self) -> None:
        lines = self._table.chosen()
        if len(lines) == 1:
            self.hitChosen.emit(lines[0])

    def _ask_index(self) -> None:
        if path := QFileDialog.getExistingDirectory(self, "Open a cohort index"):
            self.cohortRequested.emit(path)

    def _ask_scans(self) -> None:
        if path := QFileDialog.getExistingDirectory(self, "Folder with scans"):
            self.buildRequested.emit(path)
