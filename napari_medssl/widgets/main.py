"""The one widget of the plugin: five panels and the line of running work."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QTabWidget, QVBoxLayout, QWidget

from napari_medssl.widgets.case import CaseWidget
from napari_medssl.widgets.job_panel import JobPanel
from napari_medssl.widgets.labelling import LabellingWidget
from napari_medssl.widgets.prototypes import PrototypesWidget
from napari_medssl.widgets.search import SearchWidget
from napari_medssl.widgets.training import TrainingWidget


class PanelArea(QScrollArea):
    """A panel that scrolls up and down and is never cut at the side.

    Qt lets a scroll area become narrower than its panel; here it leaves room for the panel and for the
    scroll bar that a low window brings.

    Args:
        panel: what scrolls.
    """

    def __init__(self, panel: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(panel)

    def minimumSizeHint(self) -> QSize:
        """As wide as the panel and its scroll bar."""
        size = super().minimumSizeHint()
        needed = self.widget().minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width()
        return QSize(max(size.width(), needed), size.height())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Hear when the panel needs more room than before."""
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))


class MainWidget(QWidget):
    """Tabs in the order of the work: Case, Prototypes, Find, Label, Train.

    Args:
        training: the Train panel, made by the caller because it needs a settings class.
        parent: Qt parent.
    """

    def __init__(self, training: TrainingWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.plugin: object = None
        self.case = CaseWidget()
        self.prototypes = PrototypesWidget()
        self.search = SearchWidget()
        self.labelling = LabellingWidget()
        self.training = training
        self.jobs = JobPanel()
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        panels = (
            ("Case", self.case),
            ("Prototypes", self.prototypes),
            ("Find", self.search),
            ("Label", self.labelling),
            ("Train", self.training),
        )
        for name, panel in panels:
            self.tabs.addTab(PanelArea(panel), name)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.jobs)

    def show_panel(self, name: str) -> None:
        """Bring a panel to the front by its name."""
        for number in range(self.tabs.count()):
            if self.tabs.tabText(number) == name:
                self.tabs.setCurrentIndex(number)

    def sizeHint(self) -> QSize:
        """Narrow enough to leave the image most of the window."""
        return QSize(360, 620)
