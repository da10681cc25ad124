"""Tables that are read and clicked, and the colours in them."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QTableWidget, QTableWidgetItem

_SWATCH = 14  # pixels


def swatch(colour: tuple[int, int, int]) -> QIcon:
    """A small square of a colour, red, green, blue from 0 to 255."""
    square = QPixmap(_SWATCH, _SWATCH)
    square.fill(QColor(*colour))
    icon = QIcon(square)
    icon.addPixmap(square, QIcon.Mode.Selected)  # Qt would tint it in the chosen line
    return icon


def cell(text: str, is_number: bool = False) -> QTableWidgetItem:
    """A field of a table; numbers stand on the right."""
    item = QTableWidgetItem(text)
    if is_number:
        item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return item


class ReadTable(QTableWidget):
    """Whole rows are chosen, nothing is edited.

    Args:
        columns: titles.
        tooltip: what a click does.
    """

    def __init__(self, columns: Sequence[str], tooltip: str) -> None:
        super().__init__(0, len(columns))
        self.setHorizontalHeaderLabels(list(columns))
        self.verticalHeader().hide()
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setToolTip(tooltip)

    def chosen(self) -> list[int]:
        """The chosen rows, first to last."""
        return sorted({index.row() for index in self.selectedIndexes()})
