"""The Label panel: classes, scribbles, and the proposal that follows them."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_medssl.widgets.save_dialog import SaveDialog
from napari_medssl.widgets.table import swatch

TOOLS = (("Paint", "paint"), ("Erase", "erase"), ("Fill", "fill"), ("Move", "pan_zoom"))
_ROW = 24  # pixels; five classes are seen at once, more scroll


class LabellingWidget(QWidget):
    """Choose a class, paint a few voxels, watch the proposal."""

    classChosen = Signal(int)
    classAdded = Signal(str)
    classRenamed = Signal(int, str)
    toolChosen = Signal(str)
    brushChanged = Signal(int)
    autoChanged = Signal(bool)
    updateRequested = Signal()
    undoRequested = Signal()
    redoRequested = Signal()
    exportRequested = Signal(str, str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._classes = QListWidget()
        self._classes.setToolTip("Click to choose what to paint; double-click to rename")
        self._classes.setMaximumHeight(_ROW * 5)
        self._new = QLineEdit()
        self._new.setPlaceholderText("New class")
        self._add = QPushButton("Add")
        self._tools = QButtonGroup(self)
        for text, tool in TOOLS:
            button = QPushButton(text)
            button.setCheckable(True)
            button.setProperty("tool", tool)
            self._tools.addButton(button)
        self._brush = QSpinBox()
        self._brush.setRange(1, 100)
        self._brush.setSuffix(" voxels")
        self._brush.setToolTip("Diameter of the brush in voxels of the scan")
        self._undo = QPushButton("Undo")
        self._redo = QPushButton("Redo")
        self._undo.setToolTip("Take back the last stroke (Ctrl+Z); works after reopening too")
        self._auto = QCheckBox("Update the proposal after each stroke")
        self._auto.setChecked(True)
        self._auto.setToolTip(
            "The proposal follows the scribbles: paint there where it is wrong, or correct a duplicate of it"
        )
        self._update = QPushButton("Propose now")
        self._status = QLabel()
        self._status.setWordWrap(True)
        self._saved = QLabel()
        self._saved.setWordWrap(True)
        self._export_proposal = QPushButton("Save proposal…")
        self._export_labels = QPushButton("Save scribbles…")
        self._arrange()
        self._connect()
        self.setReady(False)
        self.setProposalReady(False)
        self.setHistory(False, False)

    def _arrange(self) -> None:
        tools = QHBoxLayout()
        for button in self._tools.buttons():
            tools.addWidget(button)
        new = QHBoxLayout()
        new.addWidget(self._new, 1)
        new.addWidget(self._add)
        brush = QHBoxLayout()
        brush.addWidget(QLabel("Brush"))
        brush.addWidget(self._brush, 1)
        steps = QHBoxLayout()
        for button in (self._undo, self._redo, self._update):
            steps.addWidget(button)
        export = QHBoxLayout()
        export.addWidget(self._export_proposal)
        export.addWidget(self._export_labels)
        layout = QVBoxLayout(self)
        layout.addWidget(self._classes)
        layout.addLayout(new)
        layout.addLayout(tools)
        layout.addLayout(brush)
        layout.addLayout(steps)
        layout.addWidget(self._auto)
        layout.addWidget(self._status)
        layout.addStretch()
        layout.addWidget(self._saved)
        layout.addLayout(export)

    def _connect(self) -> None:
        self._classes.currentItemChanged.connect(self._on_class)
        self._classes.itemChanged.connect(self._on_renamed)
        self._add.clicked.connect(self._on_add)
        self._new.returnPressed.connect(self._on_add)
        self._tools.buttonClicked.connect(lambda button: self.toolChosen.emit(button.property("tool")))
        self._brush.valueChanged.connect(self.brushChanged)
        self._undo.clicked.connect(self.undoRequested)
        self._redo.clicked.connect(self.redoRequested)
        self._auto.toggled.connect(self.autoChanged)
        self._update.clicked.connect(self.updateRequested)
        self._export_proposal.clicked.connect(lambda: self._ask_export("proposal"))
        self._export_labels.clicked.connect(lambda: self._ask_export("scribbles"))

    def setClasses(self, classes: Sequence[tuple[int, str, tuple[int, int, int]]], current: int) -> None:
        """The label classes as (id, name, colour), and the one to paint."""
        shown = [self._classes.item(n).data(Qt.ItemDataRole.UserRole) for n in range(self._classes.count())]
        with signals_blocked(self._classes):
            if shown == [number for number, _, _ in classes]:
                # The list may be in the middle of an edit: its items must not be replaced under it.
                for line, (number, name, _) in enumerate(classes):
                    self._classes.item(line).setText(name)
                    if number == current:
                        self._classes.setCurrentRow(line)
                return
            self._classes.clear()
            for number, name, colour in classes:
                item = QListWidgetItem(swatch(colour), name)
                item.setData(Qt.ItemDataRole.UserRole, number)
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
                self._classes.addItem(item)
                if number == current:
                    self._classes.setCurrentItem(item)

    def setTool(self, tool: str) -> None:
        """The active tool, a napari mode of labels layers; any other name lifts all buttons."""
        self._tools.setExclusive(False)
        for button in self._tools.buttons():
            button.setChecked(button.property("tool") == tool)
        self._tools.setExclusive(True)

    def setBrush(self, size: int) -> None:
        """Diameter of the brush in voxels."""
        with signals_blocked(self._brush):
            self._brush.setValue(size)

    def setReady(self, is_ready: bool) -> None:
        """Whether there is a scan to paint on."""
        for widget in (*self._tools.buttons(), self._brush, self._update, self._export_labels, self._add):
            widget.setEnabled(is_ready)

    def setProposalReady(self, is_ready: bool) -> None:
        """Whether there is a proposal to save."""
        self._export_proposal.setEnabled(is_ready)

    def setHistory(self, can_undo: bool, can_redo: bool) -> None:
        """Whether there are strokes to take back or to bring again."""
        self._undo.setEnabled(can_undo)
        self._redo.setEnabled(can_redo)

    def setStatus(self, text: str) -> None:
        """What is labelled, and what is missing."""
        self._status.setText(text)

    def setSaved(self, text: str) -> None:
        """Where the strokes are kept."""
        self._saved.setText(text)

    def _on_class(self, item: QListWidgetItem | None) -> None:
        if item is not None:
            self.classChosen.emit(item.data(Qt.ItemDataRole.UserRole))

    def _on_renamed(self, item: QListWidgetItem) -> None:
        self.classRenamed.emit(item.data(Qt.ItemDataRole.UserRole), item.text().strip())

    def _on_add(self) -> None:
        if name := self._new.text().strip():
            self._new.clear()
            self.classAdded.emit(name)

    def _ask_export(self, what: str) -> None:
        if path := SaveDialog(what, self).ask():
            self.exportRequested.emit(what, path)
