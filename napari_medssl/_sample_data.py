"""Scans to try things on: an average brain, and a made-up body."""

from __future__ import annotations

from typing import Any

LayerTuple = tuple[Any, dict[str, Any], str]


def average_brain() -> list[LayerTuple]:
    """The MNI152 T1 template: the average of 152 healthy brains, no single person's scan."""
    from medssl.io import read_volume
    from medssl.io.samples import brain_template
    from napari_medssl._reader import layer_for

    place = brain_template()
    data, options, kind = layer_for(read_volume(place), place)
    return [(data, {**options, "name": "MNI152 average brain (T1)"}, kind)]


def ct_phantom() -> list[LayerTuple]:
    """A generated body in Hounsfield units with known organs and lesions, and their labels."""
    from medssl.data.phantom import ct_phantom as make
    from napari_medssl.controllers.windows import first_limits
    from napari_medssl.layers import image_layer, labels_layer

    phantom = make()
    limits = first_limits(phantom.volume)
    image = image_layer(phantom.volume, "CT phantom", colormap="gray", contrast_limits=limits)
    organs = labels_layer(phantom.labels, "CT phantom organs", "labels", visible=False)
    lesions = labels_layer(phantom.lesions, "CT phantom lesions", "labels", visible=False)
    return [image, organs, lesions]
