"""The layers of the viewer follow the session; clicks and strokes go back to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.store.edits import Edit
from napari_medssl import layers
from napari_medssl.boxes import boxes_layer
from napari_medssl.palette import cluster_colour
from napari_medssl.pointer import Pointer
from napari_medssl.session import Detections, Pick, Session
from napari_medssl.shelf import Colours, Shelf, colormap, rgba
from napari_medssl.strokes import StrokeRecorder

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from medssl.volume import Volume

IMAGE, SCRIBBLES = "image", "scribbles"
PROPOSAL_HELP = "follows the scribbles: paint there where it is wrong, or correct a duplicate of this layer"
_HIT_MM = 6.0


class Scene:
    """Shows session values as layers of one viewer.

    It adds layers and changes only those it added, never a layer of anybody else: not one that shows the
    scan, nor a copy that the user made of one of ours. A layer the user removed comes back with the next
    change of its value, the scribbles also with the next tool.

    Args:
        viewer: the viewer, or a `ViewerModel`.
        session: the values to show.
    """

    def __init__(self, viewer: Viewer, session: Session) -> None:
        self.viewer = viewer
        self.session = session
        self.recorder: StrokeRecorder | None = None
        self._shelf = Shelf(viewer)
        self._array: Any = None
        self._theirs: Layer | None = None
        self._is_listening = False
        events = session.events
        self._links = [
            (events.volume, self._show_volume),
            (events.window, self._show_window),
            (events.focus, self._move_to),
            (events.prototypes, self._show_prototypes),
            (events.prototype_opacity, self._show_opacity),
            (events.solo, self._show_solo),
            (events.query, self._show_hits),
            (events.hits, self._show_hits),
            (events.scribbles, self._show_scribbles),
            (events.proposal, self._show_proposal),
            (events.segmentation, self._show_segmentation),
            (events.detections, self._show_detections),
            (events.classes, self._show_classes),
            (events.active_class, self._show_active_class),
            (events.picking, self._show_picking),
            (events.tool, self._show_tool),
            (events.brush, self._show_brush),
            (session.edited, self._show_edit),
            (session.leaving, self._leave),
        ]
        for signal, slot in self._links:
            signal.connect(slot)
        self._pointer = Pointer(viewer, session, self._image)
        viewer.layers.events.removed.connect(self._on_removed)

    def close(self) -> None:
        """Let go of the viewer and the session."""
        for signal, slot in self._links:
            signal.disconnect(slot)
        self._pointer.close()
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self._drop_recorder()

    def find(self, role: str) -> Layer | None:
        """Our layer of a role; as "image" also somebody else's layer that shows the scan."""
        if self.session.volume is None:
            return None
        return self._image() if role == IMAGE else self._shelf.find(role)

    # -- session -> layers ------------------------------------------------------------------------

    def _leave(self) -> None:
        """Take what belongs to the scan off at once: napari collects garbage after each removal."""
        self._drop_recorder()
        with self.viewer.layers.batched_update():
            self._shelf.clear(keep=IMAGE)

    def _show_volume(self, volume: Volume | None) -> None:
        self._drop_recorder()
        is_same_scan = volume is not None and volume.array is self._array
        self._shelf.clear(keep=IMAGE if is_same_scan else "")
        self._array = None if volume is None else volume.array
        if is_same_scan and self._image() is not None:
            return
        self._theirs = None
        if volume is None:
            return
        name = self.session.source.layer
        layer = self.viewer.layers[name] if name and name in self.viewer.layers else None
        if layer is not None and (layers.is_placed(layer) or layers.shows_world(volume.geometry)):
            self._theirs = layer
        else:  # somebody else's layer with oblique axes cannot be edited in place: it gets a second view
            self._shelf.put(IMAGE, layers.image_layer(volume, colormap="gray"))
            self.viewer.reset_view()

    def _show_window(self, window: tuple[float, float] | None) -> None:
        volume = self.session.volume
        if window is None or volume is None or self._image() is None:
            return
        if (ours := self._shelf.find(IMAGE)) is not None:
            ours.contrast_limits = window
        else:  # the contrast of their layer is theirs: a view of ours with the same array
            view = layers.image_layer(volume, colormap="gray", contrast_limits=window)
            self._shelf.put(IMAGE, view)

    def _move_to(self, voxel: tuple[int, ...] | None) -> None:
        if voxel is None or self.session.volume is None:
            return
        position = layers.displayed_position(self.session.volume.geometry, voxel)
        self.viewer.dims.point = tuple(position)

    def _show_prototypes(self, volume: Volume | None) -> None:
        if volume is None:
            self._shelf.remove("prototypes")
            return
        colours = {n: rgba(cluster_colour(n)) for n in range(1, int(volume.array.max()) + 1)}
        self._shelf.put_labels("prototypes", volume, colours, self.session.prototype_opacity)
        self._show_solo(self.session.solo)

    def _show_opacity(self, opacity: float) -> None:
        if (layer := self.find("prototypes")) is not None:
            layer.opacity = opacity

    def _show_solo(self, cluster: int) -> None:
        if (layer := self.find("prototypes")) is not None:
            layer.selected_label = cluster
            layer.show_selected_label = cluster > 0

    def _show_hits(self, _: object = None) -> None:
        volume, query = self.session.volume, self.session.query
        if volume is None:
            return
        hits = [hit for hit in self.session.hits if self.session.is_here(hit)]
        voxels = [hit.voxel for hit in hits] + ([query] if query is not None else [])
        if not voxels:
            self._shelf.remove("hits")
            return
        smallest = min(volume.geometry.spacing)
        colour = ["#ffd23f"] * len(hits) + ["#ff3b6b"] * (query is not None)
        self._shelf.put(
            "hits",
            layers.points_layer(
                volume,
                np.asarray(voxels),
                "MedSSL hits",
                "hits",
                size=_HIT_MM / smallest,
                symbol=["disc"] * len(hits) + ["cross"] * (query is not None),
                face_color="transparent",
                border_color=colour,
                border_width=0.12,
                projection_mode="rescale_spherical",
                features={
                    "rank": [*range(1, len(hits) + 1), *([0] * (query is not None))],
                    "score": [*(hit.score for hit in hits), *([1.0] * (query is not None))],
                },
            ),
        )

    def _show_scribbles(self, volume: Volume | None) -> None:
        self._drop_recorder()
        if volume is None:  # nothing keeps what would be painted there
            self._shelf.remove(SCRIBBLES)
            return
        layer = self._shelf.put_labels(SCRIBBLES, volume, self._class_colours(), 0.85)
        layer.brush_size = self.session.brush
        layer.selected_label = self.session.active_class
        layer.events.mode.connect(self._on_mode)
        layer.events.brush_size.connect(self._on_brush)
        layer.events.selected_label.connect(self._on_label)
        # The layer's own undo would change voxels behind the journal's back and forget them on closing.
        layer.bind_key("Control-Z", lambda _: self.session.undo.emit(), overwrite=True)
        layer.bind_key("Control-Shift-Z", lambda _: self.session.redo.emit(), overwrite=True)
        self.recorder = StrokeRecorder(layer, self.session.stroke.emit)
        self._show_tool(self.session.tool)

    def _show_proposal(self, volume: Volume | None) -> None:
        if volume is None:
            self._shelf.remove("proposal")
            return
        is_new = self._shelf.find("proposal") is None
        layer = self._shelf.put_labels("proposal", volume, self._map_colours(), 0.4)
        if is_new:  # the next stroke would write over what is painted there
            layer.events.editable.connect(_keep_off)
            layer.editable = False
            layer.help = PROPOSAL_HELP

    def _show_segmentation(self, volume: Volume | None) -> None:
        if volume is None:
            self._shelf.remove("segmentation")
        else:
            self._shelf.put_labels("segmentation", volume, self._map_colours(), 0.4)

    def _show_detections(self, detections: Detections | None) -> None:
        volume = self.session.volume
        if volume is None or detections is None:
            self._shelf.remove("detections")
            return
        what = detections.note.partition(";")[0] or detections.model
        name = f"MedSSL boxes ({what})" if what else "MedSSL boxes"
        self._shelf.put("detections", boxes_layer(volume, detections.boxes, name, "detections"))

    def _show_classes(self, _: object = None) -> None:
        for role in (SCRIBBLES, "proposal", "segmentation"):
            if (layer := self.find(role)) is not None:
                colours = self._class_colours() if role == SCRIBBLES else self._map_colours()
                layer.colormap = colormap(colours)

    def _show_active_class(self, class_id: int) -> None:
        if (layer := self.find(SCRIBBLES)) is not None:
            layer.selected_label = class_id

    def _show_edit(self, edit: Edit) -> None:
        if (recorder := self._recorder_shown()) is not None:
            recorder.show(edit)

    def _show_tool(self, tool: str) -> None:
        if self._is_listening:
            return
        if tool != "pan_zoom":
            self._recorder_shown()
        layer = self.find(SCRIBBLES)
        if layer is None:
            return
        if tool != "pan_zoom":
            self.session.picking = Pick.NONE
            layer.visible = True
            self.viewer.layers.selection.active = layer
        layer.mode = tool

    def _show_brush(self, size: int) -> None:
        if (layer := self.find(SCRIBBLES)) is not None:
            layer.brush_size = size

    def _show_picking(self, picking: str) -> None:
        if picking:
            self.session.tool = "pan_zoom"  # a layer in paint mode would paint
            if self._image() is None and self.session.volume is not None:  # the user removed it
                self._shelf.put(IMAGE, layers.image_layer(self.session.volume, colormap="gray"))
                self._show_window(self.session.window)
            if (image := self._image()) is not None:
                self.viewer.layers.selection.active = image
        self.viewer.cursor.style = "crosshair" if picking else "standard"

    # -- layers -> session ------------------------------------------------------------------------

    def _on_mode(self, event: Any) -> None:
        self._is_listening = True  # napari says it before the layer has the mode: do not set it again
        try:
            self.session.tool = str(event.mode)
        finally:
            self._is_listening = False

    def _on_brush(self, event: Any) -> None:
        self.session.brush = round(event.source.brush_size)

    def _on_label(self, event: Any) -> None:
        chosen = int(event.source.selected_label)
        if chosen in {entry.id for entry in self.session.classes}:
            self.session.active_class = chosen
        elif chosen:  # 0 erases; what is in no list has no name and no colour
            event.source.selected_label = self.session.active_class

    def _on_removed(self, event: Any) -> None:
        if layers.role_of(event.value) == SCRIBBLES and self.find(SCRIBBLES) is None:
            self._drop_recorder()

    # -- small parts ------------------------------------------------------------------------------

    def _image(self) -> Layer | None:
        """The layer that shows the scan, ours or somebody else's, whatever it is called now."""
        ours, theirs = self._shelf.find(IMAGE), self._theirs
        return theirs if ours is None and theirs is not None and theirs in self.viewer.layers else ours

    def _recorder_shown(self) -> StrokeRecorder | None:
        """The recorder; scribbles whose layer the user removed are shown again."""
        if self.recorder is None and self.session.scribbles is not None:
            self._show_scribbles(self.session.scribbles)
        return self.recorder

    def _class_colours(self) -> Colours:
        return {entry.id: rgba(entry.colour) for entry in self.session.classes}

    def _map_colours(self) -> Colours:
        """Colours of a whole-volume result: what is called background does not cover the scan."""
        names = {entry.id: entry.name.lower() for entry in self.session.classes}
        return {
            number: (0.0, 0.0, 0.0, 0.0) if names[number] == "background" else colour
            for number, colour in self._class_colours().items()
        }

    def _drop_recorder(self) -> None:
        if self.recorder is not None:
            self.recorder.close()
            self.recorder = None


def _keep_off(event: Any) -> None:
    """A layer stays closed to painting; napari opens it with every new array and every turn to 2D."""
    if event.source.editable:
        event.source.editable = False
