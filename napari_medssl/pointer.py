"""A click into the image as a voxel of the scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_info

from napari_medssl.session import Pick, Session

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

IN_SLICES = "Pick in the 2D view: a click into a volume has no depth."
_LARGEST_DRAG = 3.0  # canvas pixels; a longer one is a pan, not a click


class Pointer:
    """Listens to the mouse while the session waits for a pick.

    Args:
        viewer: the viewer.
        session: says whether a click means something, and hears about it.
        image: the layer that shows the scan.
    """

    def __init__(self, viewer: Viewer, session: Session, image: Callable[[], Layer | None]) -> None:
        self._viewer = viewer
        self._session = session
        self._image = image
        viewer.mouse_drag_callbacks.append(self._on_mouse)

    def close(self) -> None:
        """Stop listening."""
        if self._on_mouse in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_mouse)

    def pick(self, position: tuple[float, ...]) -> None:
        """Take a displayed position as a voxel of the scan, if it lies inside."""
        layer, volume = self._image(), self._session.volume
        if layer is None or volume is None:
            return
        index = np.round(np.asarray(layer.world_to_data(position))[: volume.geometry.ndim]).astype(int)
        if volume.geometry.contains(index):
            self._session.picked.emit(tuple(int(i) for i in index), self._session.picking)

    def _on_mouse(self, _: object, event: Any) -> Iterator[None]:
        """A press and a release at the same place."""
        pressed = np.asarray(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        is_click = np.abs(np.asarray(event.pos) - pressed).max() <= _LARGEST_DRAG
        if is_click and event.button == 1 and self._session.picking != Pick.NONE:
            if self._viewer.dims.ndisplay == 3 and len(event.position) > 2:
                show_info(IN_SLICES)
            else:
                self.pick(event.position)
