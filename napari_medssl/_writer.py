"""Saves layers in exactly the geometry of their scan."""

from __future__ import annotations

from typing import Any

from medssl.errors import InputError


def write_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write one image or labels layer.

    Args:
        path: file name; its ending chooses the format.
        data: the layer's array.
        attributes: the layer's state as napari hands it to writers.

    Returns:
        The written path.

    Raises:
        InputError: the layer has no geometry that the format can hold.
    """
    from napari.layers import Image, Labels

    from medssl.io import write_volume
    from napari_medssl.layers import volume_of

    kind = Image if "contrast_limits" in attributes or attributes.get("rgb") else Labels
    known = ("scale", "translate", "affine", "rotate", "shear", "units", "axis_labels", "metadata", "name")
    options = {name: attributes[name] for name in known if attributes.get(name) is not None}
    if getattr(data, "ndim", 0) not in (2, 3, 4):
        raise InputError(f"{path}: a layer of {getattr(data, 'ndim', '?')} axes cannot be saved as a scan")
    if kind is Image:
        options["rgb"] = bool(attributes.get("rgb"))
    write_volume(volume_of(kind(data, **options)), path)
    return [path]
