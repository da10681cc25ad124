"""A small live chart: one line per quantity over the training steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

Series = Sequence[tuple[float, float]]

_COLOURS = ("#4dbbd5", "#f39b7f", "#91d1a0", "#d6a2e8")
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 22, 20


class CurveWidget(QWidget):
    """Draws curves; each has its own axis from 0 (or its minimum) to 1 or, beyond 1, to its maximum.

    The numbers on the left belong to the first curve. A legend names the last value of each.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._curves: dict[str, list[tuple[float, float]]] = {}
        self.setMinimumHeight(130)
        self.setMaximumHeight(240)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def setCurves(self, curves: Mapping[str, Series]) -> None:
        """Replace all curves by (step, value) pairs."""
        self._curves = {name: list(points) for name, points in curves.items() if points}
        self.update()

    def curves(self) -> Mapping[str, Series]:
        """What is drawn."""
        return self._curves

    def sizeHint(self) -> QSize:
        """Wider than high."""
        return QSize(300, 170)

    def paintEvent(self, _: object) -> None:
        """Frame, axis numbers, curves, legend."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        faint = QColor(text)
        faint.setAlpha(90)
        area = QRectF(_LEFT, _TOP, self.width() - _LEFT - _RIGHT, self.height() - _TOP - _BOTTOM)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(area)
        if not self._curves:
            painter.setPen(text)
            painter.drawText(area, int(Qt.AlignmentFlag.AlignCenter), "no training yet")
            return
        steps = [step for points in self._curves.values() for step, _ in points]
        first, last = min(steps), max(*steps, min(steps) + 1)
        painter.setPen(text)
        painter.drawText(
            QRectF(area.left(), area.bottom() + 2, area.width(), _BOTTOM),
            int(Qt.AlignmentFlag.AlignRight),
            f"step {last:.0f}",
        )
        left = float(_LEFT)
        for place, (name, points) in enumerate(self._curves.items()):
            colour = QColor(_COLOURS[place % len(_COLOURS)])
            values = [value for _, value in points]
            low, high = min(0.0, *values), max(values)
            if 0 < high <= 1 or high <= low:
                high = low + 1.0  # a Dice curve keeps its meaning: the top of the frame is 1
            if place == 0:
                painter.setPen(text)
                for value, y in ((high, area.top()), (low, area.bottom())):
                    box = QRectF(0, y - 8, _LEFT - 6, 16)
                    painter.drawText(
                        box, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter), f"{value:.3g}"
                    )
            line = QPolygonF(
                [
                    QPointF(
                        area.left() + area.width() * (step - first) / (last - first),
                        area.bottom() - area.height() * (value - low) / (high - low),
                    )
                    for step, value in points
                ]
            )
            painter.setPen(QPen(colour, 2))
            if len(points) == 1:
                painter.drawEllipse(line[0], 2, 2)
            painter.drawPolyline(line)
            legend = f"{name} {points[-1][1]:.3g}"
            painter.drawText(QPointF(left, 15), legend)
            left += painter.fontMetrics().horizontalAdvance(legend) + 14
