"""What is being computed, how far it is, and the way to end it."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QProgressBar, QPushButton, QWidget
from superqt import QElidingLabel


class JobPanel(QWidget):
    """One line of text, a bar and a cancel button; the last message stays when nothing runs."""

    cancelRequested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text = QElidingLabel("Ready.")
        self._text.setWordWrap(True)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setMaximumHeight(10)
        self._cancel = QPushButton("Cancel")
        self._cancel.setToolTip("End the running work at its next step")
        layout = QGridLayout(self)
        layout.setContentsMargins(9, 2, 9, 6)
        layout.addWidget(self._text, 0, 0)
        layout.addWidget(self._cancel, 0, 1, 2, 1)
        layout.addWidget(self._bar, 1, 0)
        layout.setColumnStretch(0, 1)
        for widget in (self._bar, self._cancel):
            policy = widget.sizePolicy()
            policy.setRetainSizeWhenHidden(True)
            widget.setSizePolicy(policy)
        self._cancel.clicked.connect(self.cancelRequested)
        self.setIdle("Ready.")

    def setProgress(self, text: str, step: int, total: int | None) -> None:
        """The running work; without a total the bar moves on its own."""
        self._show(text)
        self._bar.setRange(0, total or 0)
        self._bar.setValue(step)
        self._bar.setVisible(True)
        self._cancel.setVisible(True)

    def setIdle(self, text: str) -> None:
        """Nothing runs; the last message."""
        self._show(text)
        self._bar.setVisible(False)
        self._cancel.setVisible(False)

    def text(self) -> str:
        """The message shown."""
        return str(self._text.text())

    def _show(self, text: str) -> None:
        self._text.setText(text)
        self._text.setToolTip(text)
