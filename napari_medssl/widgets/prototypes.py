"""The Prototypes panel: what the encoder tells apart, as a coloured map."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider
from superqt.utils import signals_blocked

from napari_medssl.widgets.rows import ClusterRow
from napari_medssl.widgets.table import ReadTable, cell, swatch

_COLUMNS = ("Cluster", "Share", "Volume")
_VOLUME = 2
_HINT = "Compute the map: voxels of one colour look alike to the encoder."


class PrototypesWidget(QWidget):
    """Compute a map with K clusters, fade it, look at one cluster alone."""

    requested = Signal(int)
    opacityChanged = Signal(float)
    soloChanged = Signal(int)
    pickToggled = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._count = QSpinBox()
        self._count.setRange(2, 64)
        self._count.setValue(12)
        self._count.setToolTip("K, how many groups of similar tissue to tell apart")
        self._compute = QPushButton("Compute map")
        self._opacity = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self._opacity.setRange(0, 1)
        self._opacity.setDecimals(2)
        self._opacity.setSingleStep(0.05)
        self._opacity.setToolTip("0 shows the scan alone, 1 hides it")
        self._pick = QPushButton("Pick in image")
        self._pick.setCheckable(True)
        self._pick.setToolTip("Click a cluster in the image to see it alone")
        self._all = QPushButton("Show all")
        self._all.setEnabled(False)
        self._table = ReadTable(_COLUMNS, "Click a cluster to see it alone; click it again to see all")
        self._table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self._table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self._hint = QLabel()
        self._hint.setWordWrap(True)
        self._hint.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._solo = 0
        self._arrange()
        self._connect()
        self.setClusters(())

    def _arrange(self) -> None:
        top = QHBoxLayout()
        top.addWidget(QLabel("Clusters K"))
        top.addWidget(self._count)
        top.addWidget(self._compute, 1)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Opacity", self._opacity)
        bottom = QHBoxLayout()
        bottom.addWidget(self._pick)
        bottom.addWidget(self._all)
        layout = QVBoxLayout(self)
        layout.addLayout(top)
        layout.addLayout(form)
        layout.addWidget(self._hint)
        layout.addWidget(self._table, 1)
        layout.addLayout(bottom)

    def _connect(self) -> None:
        self._compute.clicked.connect(lambda: self.requested.emit(self._count.value()))
        self._opacity.valueChanged.connect(self.opacityChanged)
        self._pick.toggled.connect(self.pickToggled)
        self._all.clicked.connect(lambda: self.soloChanged.emit(0))
        self._table.cellClicked.connect(self._on_cell)

    def count(self) -> int:
        """The chosen K."""
        return self._count.value()

    def setEnabledFor(self, has_volume: bool) -> None:
        """Whether there is a scan to work on."""
        self._compute.setEnabled(has_volume)

    def setOpacity(self, opacity: float) -> None:
        """Opacity of the map, 0 to 1."""
        with signals_blocked(self._opacity):
            self._opacity.setValue(opacity)

    def setPicking(self, is_picking: bool) -> None:
        """Whether a click into the image chooses a cluster."""
        with signals_blocked(self._pick):
            self._pick.setChecked(is_picking)

    def setClusters(self, rows: Sequence[ClusterRow], note: str = "") -> None:
        """The clusters of the map, largest first, and a word about them."""
        self._table.setRowCount(len(rows))
        for line, row in enumerate(rows):
            number = cell(str(row.number))
            number.setIcon(swatch(row.colour))
            number.setData(Qt.ItemDataRole.UserRole, row.number)
            share = cell(f"{100 * row.share:.1f} %", is_number=True)
            size = cell("-" if row.millilitres is None else f"{row.millilitres:,.0f} ml", is_number=True)
            for column, item in enumerate((number, share, size)):
                self._table.setItem(line, column, item)
        self._table.setColumnHidden(_VOLUME, all(row.millilitres is None for row in rows))
        self._table.setVisible(bool(rows))
        self._hint.setText(note if rows else _HINT)
        self._hint.setVisible(bool(self._hint.text()))
        self._pick.setEnabled(bool(rows))

    def setSolo(self, number: int) -> None:
        """The cluster shown alone, 0 for all."""
        self._solo = number
        self._all.setEnabled(number > 0)
        with signals_blocked(self._table):
            self._table.clearSelection()
            for line in range(self._table.rowCount()):
                if number and self._table.item(line, 0).data(Qt.ItemDataRole.UserRole) == number:
                    self._table.selectRow(line)

    def _on_cell(self, line: int, _: int) -> None:
        number = self._table.item(line, 0).data(Qt.ItemDataRole.UserRole)
        self.soloChanged.emit(0 if number == self._solo else number)
