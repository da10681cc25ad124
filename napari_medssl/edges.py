"""Letters at the edges of the picture: towards which side of the patient it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medssl.io.axes import orientation_code
from medssl.volume import Geometry
from napari_medssl.layers import shows_world
from napari_medssl.session import Session

if TYPE_CHECKING:
    from napari import Viewer

OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
EDGES = ("top_center", "bottom_center", "middle_left", "middle_right")
_WORLD = "SPL"  # LPS in array order (z, y, x): where napari's world coordinates grow
_SIZE = 14


def axis_letters(geometry: Geometry) -> str:
    """Towards which side of the patient each array axis grows as napari shows it; empty where unknown.

    An oblique axis is named after the nearest side.

    Args:
        geometry: grid of the scan.
    """
    code = orientation_code(geometry)
    if not code:
        return ""
    return _WORLD if shows_world(geometry) else code[::-1]


class EdgeLetters:
    """Four text overlays of the canvas; they follow the shown scan and the order of its axes.

    A scan of unknown place in the patient (a layer without a file, a picture) has none, nor has 3D.

    Args:
        viewer: the viewer, or a `ViewerModel`.
        session: says what is shown.
    """

    def __init__(self, viewer: Viewer, session: Session) -> None:
        from napari.components.overlays import TextOverlay

        self._viewer = viewer
        self._session = session
        self._overlays = {
            # on black: napari's own box has the colour of the canvas, white in its light theme
            edge: TextOverlay(position=edge, font_size=_SIZE, color="#ffd23f", box=True, box_color="black")
            for edge in EDGES
        }
        for edge, overlay in self._overlays.items():
            viewer.canvas.overlays[_name(edge)] = overlay
        session.events.volume.connect(self._show)
        self._events = (viewer.dims.events.order, viewer.dims.events.ndisplay, viewer.dims.events.ndim)
        for event in self._events:
            event.connect(self._show)
        self._show()

    def close(self) -> None:
        """Take the letters away."""
        self._session.events.volume.disconnect(self._show)
        for event in self._events:
            event.disconnect(self._show)
        for edge in EDGES:
            self._viewer.canvas.overlays.pop(_name(edge), None)

    def letters(self) -> dict[str, str]:
        """Letter by edge, empty where none is shown."""
        return {edge: overlay.text for edge, overlay in self._overlays.items() if overlay.visible}

    def _show(self, _: object = None) -> None:
        texts = self._texts()
        for edge, overlay in self._overlays.items():
            overlay.text = texts.get(edge, "")
            overlay.visible = edge in texts

    def _texts(self) -> dict[str, str]:
        volume, dims = self._session.volume, self._viewer.dims
        if volume is None or self._session.source.path is None or dims.ndisplay != 2:
            return {}
        ends = axis_letters(volume.geometry)
        axes = [axis - (dims.ndim - volume.geometry.ndim) for axis in dims.displayed]
        if not ends or min(axes) < 0:
            return {}
        down, right = (ends[axis] for axis in axes)
        return dict(zip(EDGES, (OPPOSITE[down], down, OPPOSITE[right], right), strict=True))


def _name(edge: str) -> str:
    return f"medssl_{edge}"
