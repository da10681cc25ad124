"""A trained network segments the shown scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medssl.volume import Volume
from napari_medssl.controllers.panel import PanelController
from napari_medssl.session import Session

if TYPE_CHECKING:
    from napari_medssl.engine import Engine
    from napari_medssl.widgets.training import TrainingWidget
    from napari_medssl.workers import Run


class PredictionController(PanelController["TrainingWidget"]):
    """Uses the session's run on the session's volume.

    Args:
        session: shared values.
        widget: the panel with the button.
        engine: predicts.
        run: runs the engine's generators.
    """

    def __init__(self, session: Session, widget: TrainingWidget, engine: Engine, run: Run) -> None:
        super().__init__(session, widget, engine, run)
        widget.useRequested.connect(self.predict)
        widget.saveRequested.connect(lambda path: self.save(session.segmentation, path))
        session.events.segmentation.connect(lambda found: widget.setSavable(found is not None))
        session.events.run.connect(lambda _: self._show())
        session.events.volume.connect(lambda _: self._show())
        self._show()

    def predict(self) -> None:
        """Segment the shown volume with the trained network."""
        volume, model = self._session.volume, self._session.run
        if volume is None or model is None:
            return

        def done(segmentation: Volume) -> None:
            if self._session.volume is volume:
                self._session.segmentation = segmentation

        steps = self._engine.predict(volume, model)
        self._run(steps, "Segmentation", done, topic="predict")

    def _show(self) -> None:
        self._widget.setUsable(self._session.run is not None and self._session.volume is not None)
