"""Puts the plugin together: one session, one scene, five controllers, one widget."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medssl import layers
from napari_medssl.controllers.case import CaseController
from napari_medssl.controllers.labelling import LabellingController
from napari_medssl.controllers.prediction import PredictionController
from napari_medssl.controllers.prototypes import PrototypesController
from napari_medssl.controllers.search import SearchController
from napari_medssl.controllers.training import TrainingController
from napari_medssl.edges import EdgeLetters
from napari_medssl.engine import Engine
from napari_medssl.orders import FIRST_SETTINGS, MORE_SETTINGS, training_defaults
from napari_medssl.scene import Scene
from napari_medssl.session import Pick, Session, Source
from napari_medssl.widgets.main import MainWidget
from napari_medssl.widgets.training import TrainingWidget
from napari_medssl.workers import Workers

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from medssl.volume import Volume

logger = logging.getLogger(__name__)

DEFAULT_PROJECT = "~/medssl-project"


class Plugin:
    """Everything that belongs to one opened widget.

    Args:
        viewer: the napari viewer.
        project: project folder; the one of the preferences by default.
        engine: answers the controllers; a new one by default.
        workers: runs commands; one device thread by default.
        widget: the panels; new ones by default.
    """

    def __init__(
        self,
        viewer: Viewer,
        project: Path | None = None,
        engine: Engine | None = None,
        workers: Workers | None = None,
        widget: MainWidget | None = None,
    ) -> None:
        settings = preferences()
        self.viewer = viewer
        self.session = Session(
            project=project or Path(settings["folder"]).expanduser(),
            encoder=settings["encoder"],
            device=settings["device"],
        )
        self.workers = workers or Workers()
        self.engine = engine or Engine(self.session.encoder, self.session.device)
        self.widget = widget or MainWidget(training_panel())
        self.widget.plugin = self  # the widget keeps the controllers alive: signals hold them weakly
        self.scene = Scene(viewer, self.session)
        self.edges = EdgeLetters(viewer, self.session)
        session, run = self.session, self.workers.run
        widget, training = self.widget, self.widget.training
        self.case = CaseController(
            session, widget.case, self.engine, run, volume_of_layer=self._volume_of_layer, report=report
        )
        self.prototypes = PrototypesController(session, widget.prototypes, self.engine, run)
        self.search = SearchController(session, widget.search, self.engine, run, open_case=self.case.open)
        self.labelling = LabellingController(session, widget.labelling, self.engine, run, report=report)
        self.training = TrainingController(
            session, training, self.engine, run, every=self.workers.every, report=report
        )
        self.prediction = PredictionController(session, training, self.engine, run)
        self.workers.progressed.connect(widget.jobs.setProgress)
        self.workers.idle.connect(widget.jobs.setIdle)
        widget.jobs.cancelRequested.connect(self.workers.cancel)
        widget.destroyed.connect(self.close)
        events = viewer.layers.events
        self._events = (events.inserted, events.removed, events.renamed)
        for event in self._events:
            event.connect(self._on_layers)
        session.events.volume.connect(self._list_layers)
        viewer.bind_key("Q", self._toggle_query, overwrite=True)
        viewer.bind_key("K", lambda _: widget.search.accept(), overwrite=True)
        self._on_layers()

    def close(self) -> None:
        """Let go of the viewer, the thread and the files; a training run goes on."""
        for event in self._events:
            event.disconnect(self._on_layers)
        self.training.close()
        self.scene.close()
        self.edges.close()
        self.labelling.close()
        self.workers.close()

    def _on_layers(self, _: Any = None) -> None:
        """A layer came, went or got a name; the first image that is at hand is taken without asking."""
        at_hand = [layer.name for layer in self._list_layers() if layers.is_in_memory(layer)]
        if self.session.volume is None and at_hand:
            self.case.take_layer(at_hand[-1])

    def _list_layers(self, _: Any = None) -> list[Layer]:
        from napari.layers import Image

        images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        shown = self.scene.find("image")
        self.widget.case.setLayers([layer.name for layer in images], "" if shown is None else shown.name)
        return images

    def _volume_of_layer(self, name: str) -> tuple[Volume | Callable[[], Volume], Source]:
        layer = self.viewer.layers[name]
        path = layer.metadata.get("path") if layers.shows_its_file(layer) else None
        read = layers.reader_of(layer)
        source = Source(path=Path(path) if path else None, layer=name)
        return read() if layers.is_in_memory(layer) else read, source

    def _toggle_query(self, _: Viewer) -> None:
        is_on = self.session.picking == Pick.QUERY
        self.session.picking = Pick.NONE if is_on else Pick.QUERY
        self.widget.show_panel("Find")


class MedSSLWidget(MainWidget):
    """The widget of the manifest: napari makes it and docks it.

    A class, because napari looks for ``napari_viewer`` in the constructor only.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(training_panel())
        Plugin(napari_viewer, widget=self)


def training_panel() -> TrainingWidget:
    """The Train panel with the settings of `medssl finetune`."""
    defaults = training_defaults()
    panel = TrainingWidget(type(defaults), FIRST_SETTINGS, MORE_SETTINGS)
    panel.setSettings(defaults)
    return panel


def report(error: Exception) -> None:
    """Show an error and keep it in the log."""
    from napari.utils.notifications import show_error

    logger.error("%s", error)
    show_error(str(error))


def preferences() -> dict[str, str]:
    """The user's choices from napari's preferences; the defaults where napari has no such page."""
    values = {"folder": DEFAULT_PROJECT, "encoder": "default", "device": "auto"}
    try:
        from napari.settings import get_plugin_settings

        settings = get_plugin_settings("napari-medssl")
        chosen = {
            "folder": settings.project.folder,
            "encoder": settings.engine.encoder,
            "device": settings.engine.device,
        }
    except (ImportError, AttributeError, KeyError) as error:
        logger.info("no plugin preferences: %s", error)
        return values
    return {name: str(chosen[name] or value) for name, value in values.items()}
