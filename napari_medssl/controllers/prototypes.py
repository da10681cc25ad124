"""The prototype map: compute, fade, look at one cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medssl.volume import Volume
from napari_medssl.controllers.panel import PanelController
from napari_medssl.palette import cluster_colour
from napari_medssl.session import Pick, Session
from napari_medssl.widgets.rows import ClusterRow

if TYPE_CHECKING:
    from napari_medssl.engine import Clusters, Engine
    from napari_medssl.widgets.prototypes import PrototypesWidget
    from napari_medssl.workers import Run

SOURCES = {
    "learned": "Groups of learned prototypes.",
    "k-means": "Clusters of this scan's own features.",
}
"""What the panel says about a map."""


class PrototypesController(PanelController["PrototypesWidget"]):
    """Keeps the panel and ``session.prototypes`` in step.

    Args:
        session: shared values.
        widget: the panel.
        engine: computes the map.
        run: runs the engine's generators.
    """

    def __init__(self, session: Session, widget: PrototypesWidget, engine: Engine, run: Run) -> None:
        super().__init__(session, widget, engine, run)
        widget.requested.connect(self.compute)
        widget.opacityChanged.connect(self._set_opacity)
        widget.soloChanged.connect(self._set_solo)
        widget.pickToggled.connect(self._set_picking)
        session.events.volume.connect(self._on_volume)
        session.events.prototypes.connect(self._on_prototypes)
        session.events.prototype_opacity.connect(widget.setOpacity)
        session.events.solo.connect(widget.setSolo)
        session.events.picking.connect(lambda picking: widget.setPicking(picking == Pick.CLUSTER))
        session.picked.connect(self._on_picked)
        widget.setOpacity(session.prototype_opacity)
        self._on_volume(session.volume)

    def compute(self, count: int) -> None:
        """Compute the map of the shown volume with ``count`` clusters."""
        volume = self._session.volume
        if volume is None:
            return

        def done(clusters: Clusters) -> None:
            if self._session.volume is volume:
                self.show(clusters)

        steps = self._engine.prototypes(volume, count)
        self._run(steps, "Prototype map", done, topic="prototypes")

    def show(self, clusters: Clusters) -> None:
        """Show a map of the shown volume."""
        self._session.solo = 0
        self._session.prototypes = clusters.volume
        self._widget.setClusters(rows(clusters), SOURCES.get(clusters.source, ""))

    def _on_volume(self, volume: Volume | None) -> None:
        self._widget.setEnabledFor(volume is not None)

    def _on_prototypes(self, prototypes: Volume | None) -> None:
        if prototypes is None:
            self._widget.setClusters(())
            self._session.solo = 0

    def _set_opacity(self, opacity: float) -> None:
        self._session.prototype_opacity = opacity

    def _set_solo(self, cluster: int) -> None:
        self._session.solo = cluster

    def _set_picking(self, is_picking: bool) -> None:
        self._session.picking = Pick.CLUSTER if is_picking else Pick.NONE

    def _on_picked(self, voxel: tuple[int, ...], picking: str) -> None:
        prototypes = self._session.prototypes
        if picking == Pick.CLUSTER and prototypes is not None:
            cluster = int(prototypes.array[(0, *voxel)])
            self._session.solo = 0 if cluster == self._session.solo else cluster


def rows(clusters: Clusters) -> list[ClusterRow]:
    """The lines of the list, largest cluster first; 0 (outside the body) is left out."""
    geometry = clusters.volume.geometry
    total = sum(count for number, count in clusters.counts.items() if number > 0) or 1
    millilitres = 1.0
    for spacing in geometry.spacing:
        millilitres *= spacing
    has_size = geometry.has_spacing and geometry.ndim == 3
    found = [
        ClusterRow(
            number=number,
            colour=cluster_colour(number),
            share=count / total,
            millilitres=count * millilitres / 1000 if has_size else None,
        )
        for number, count in clusters.counts.items()
        if number > 0 and count > 0
    ]
    return sorted(found, key=lambda row: -row.share)
