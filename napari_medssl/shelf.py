"""The layers that the plugin added to a viewer, by role and in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medssl import layers

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from medssl.volume import Volume

Colours = dict[int, tuple[float, ...]]
LayerTuple = tuple[Any, dict[str, Any], str]

ORDER = ("image", "prototypes", "proposal", "segmentation", "detections", "scribbles", "hits")
"""Roles from the bottom of the layer list to its top."""
MAPS = ("prototypes", "proposal", "segmentation")
"""Roles that colour the whole scan."""

_OF_POINTS = {"size", "symbol", "border_color", "border_width", "features"}
"""Settings with a value for every point."""


class Shelf:
    """Adds, updates and removes our layers, one per role; anybody else's stay as they are.

    A layer is ours because we made it. Its metadata would not tell: napari copies them with the layer.

    Args:
        viewer: the viewer, or a `ViewerModel`.
    """

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self._own: dict[str, Layer] = {}

    def find(self, role: str) -> Layer | None:
        """Our layer of a role, as long as nobody removed it."""
        layer = self._own.get(role)
        return layer if layer is not None and layer in self.viewer.layers else None

    def clear(self, keep: str = "") -> None:
        """Remove our layers, but for the one of a role."""
        for role in [own for own in self._own if own != keep]:
            self.remove(role)

    def remove(self, role: str) -> None:
        """Remove the layer of a role, if there is one."""
        layer = self.find(role)
        self._own.pop(role, None)
        if layer is not None:
            self.viewer.layers.remove(layer)

    def put(self, role: str, layer: LayerTuple) -> Layer:
        """Add a layer, or give the values to the labels or points of this role; the selection stays.

        To remove a layer costs napari a third of a second: it collects garbage.
        """
        data, options, kind = layer
        old = self.find(role)
        if old is not None and kind == "labels":
            old.data = data
            old.colormap = options["colormap"]
            return old
        if old is not None and kind == "points" and old.ndim == data.shape[1]:
            old.selected_data = set()
            old.data = data
            for name in _OF_POINTS & options.keys():
                setattr(old, name, options[name])
            return old
        selected = self.viewer.layers.selection.active
        self.remove(role)
        added = getattr(self.viewer, f"add_{kind}")(data, **options)
        self._own[role] = added
        above = [n for n, other in enumerate(self.viewer.layers) if _rank(other) > _rank(added)]
        if above:
            self.viewer.layers.move(len(self.viewer.layers) - 1, above[0])
        if selected is not None and selected in self.viewer.layers:
            self.viewer.layers.selection.active = selected
        return added

    def put_labels(self, role: str, volume: Volume, colours: Colours, opacity: float) -> Layer:
        """Show a mask under its role; an old layer keeps the opacity the user gave it.

        A map that is new is shown alone among the maps: two on top of each other cannot be read.
        """
        old = self.find(role)
        if role in MAPS and (old is None or role == "prototypes"):
            for other in MAPS:
                if (layer := self.find(other)) is not None:
                    layer.visible = other == role
        options = {"opacity": opacity if old is None else old.opacity, "colormap": colormap(colours)}
        return self.put(role, layers.labels_layer(volume, f"MedSSL {role}", role, **options))


def colormap(colours: Colours) -> Any:
    """A napari colormap for masks: 0 is clear, a value without a colour grey."""
    from napari.utils.colormaps import DirectLabelColormap

    grey = (0.6, 0.6, 0.6, 1.0)
    return DirectLabelColormap(color_dict={None: grey, 0: (0.0, 0.0, 0.0, 0.0), **colours})


def rgba(colour: tuple[int, int, int]) -> tuple[float, ...]:
    """Red, green, blue (0 to 255) as napari takes them."""
    return (*(part / 255 for part in colour), 1.0)


def _rank(layer: Layer) -> int:
    role = layers.role_of(layer)
    return ORDER.index(role) if role in ORDER else -1
