"""Volumes as napari layers and back: the only file that knows both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.errors import InputError
from medssl.volume import Geometry, Volume

if TYPE_CHECKING:
    from napari.layers import Layer
    from numpy.typing import NDArray

KEY = "medssl"
"""Key of our entry in ``layer.metadata``."""

_AXES = {2: ("y", "x"), 3: ("z", "y", "x")}
_SIGNED_DIAGONAL = 1e-4
_LARGEST_SHEAR = 1e-3


def shows_world(geometry: Geometry) -> bool:
    """Whether napari can show this grid in world coordinates.

    napari's 2D slicing uses only the diagonal of the affine: with permuted or oblique axes it shows
    one slice and paints into another (napari issues 4205 and 7310). Such a volume is shown in its own
    frame, world coordinates turned by its direction, where every voxel is displayed and edited exactly.
    """
    direction = np.asarray(geometry.direction)
    return bool(np.abs(np.abs(direction) - np.eye(geometry.ndim)).max() < _SIGNED_DIAGONAL)


def placement(geometry: Geometry) -> dict[str, Any]:
    """Arguments that place a layer: scale in mm, translate, affine, units and axis labels.

    ``scale`` is always the positive voxel spacing; the signs of the axes stand in ``affine``.

    Args:
        geometry: grid of the layer's voxels, array order.
    """
    n = geometry.ndim
    direction = np.asarray(geometry.direction)
    affine = np.eye(n + 1)
    if shows_world(geometry):
        signs = np.sign(np.diag(direction))
        affine[:-1, :-1] = np.diag(signs)
        translate = signs * np.asarray(geometry.origin)
    else:
        translate = direction.T @ np.asarray(geometry.origin)
    return {
        "scale": geometry.spacing,
        "translate": tuple(translate),
        "affine": affine,
        "units": ("mm" if geometry.has_spacing else "pixel",) * n,
        "axis_labels": _AXES[n],
    }


def displayed_position(geometry: Geometry, voxel: Iterable[float]) -> NDArray[np.float64]:
    """Where napari shows a voxel index (n,) of a layer placed by `placement`."""
    place = placement(geometry)
    inner = np.asarray(tuple(voxel)) * place["scale"] + place["translate"]
    return np.asarray(place["affine"][:-1, :-1] @ inner)


def image_layer(volume: Volume, name: str = "", **options: Any) -> tuple[Any, dict[str, Any], str]:
    """A napari layer tuple that shows a volume; three 8-bit channels of an image show as colours.

    Args:
        volume: the image.
        name: layer name, the volume's id by default.
        **options: further arguments of the layer.
    """
    settings = settings_of(volume, name or volume.id or "image", "image", options)
    array = volume.array
    if len(array) == 1:
        return array[0], settings, "image"
    if len(array) in (3, 4) and array.dtype == np.uint8:
        return np.moveaxis(array, 0, -1), {**settings, "rgb": True}, "image"
    settings["metadata"][KEY]["channel"] = True
    return array[0], {**settings, "name": f"{settings['name']} (first of {len(array)} channels)"}, "image"


def labels_layer(volume: Volume, name: str, role: str, **options: Any) -> tuple[Any, dict[str, Any], str]:
    """A napari layer tuple for a mask; its array is shared, so painting changes the volume's voxels.

    Args:
        volume: (1, *S) integers.
        name: layer name.
        role: what the plugin uses the layer for ("scribbles", "proposal", "prototypes", "labels").
        **options: further arguments of the layer.
    """
    array = volume.array[0]
    if array.dtype.kind not in "iu":
        array = array.astype(np.int32)
    return array, settings_of(volume, name, role, options), "labels"


def points_layer(
    volume: Volume, voxels: NDArray[Any], name: str, role: str, **options: Any
) -> tuple[Any, dict[str, Any], str]:
    """A napari layer tuple with points at voxel indices (N, n) of a volume."""
    return np.asarray(voxels, dtype=float), settings_of(volume, name, role, options), "points"


def settings_of(volume: Volume, name: str, role: str, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a layer of ours: name, place, and metadata that say what it shows."""
    metadata = {
        **options.pop("metadata", {}),
        KEY: {
            "role": role,
            "id": volume.id,
            "modality": volume.modality,
            "geometry": volume.geometry,
            "notes": volume.notes,
        },
    }
    return {"name": name, "metadata": metadata, **placement(volume.geometry), **options}


def role_of(layer: Layer) -> str:
    """What the plugin made the layer for; empty for anybody else's layer."""
    return str(layer.metadata.get(KEY, {}).get("role", ""))


def is_placed(layer: Layer) -> bool:
    """Whether the layer lies where `placement` puts its grid, so that napari slices it exactly."""
    geometry = layer.metadata.get(KEY, {}).get("geometry")
    return geometry is not None and geometry.ndim == layer.ndim and _is_at_home(layer, geometry)


def is_in_memory(layer: Layer) -> bool:
    """Whether the voxels of a layer are there already; dask, zarr and mapped files take long to read."""
    data = layer.data[0] if layer.multiscale else layer.data
    return isinstance(data, np.ndarray) and not isinstance(data, np.memmap)


def shows_its_file(layer: Layer) -> bool:
    """Whether the file that a layer of our reader names still lies where the layer does, whole."""
    return is_placed(layer) and not layer.metadata[KEY].get("channel")


def volume_of(layer: Layer) -> Volume:
    """The volume that an image or labels layer shows; the layer is only read.

    A layer we made keeps its exact geometry in its metadata, which counts as long as nobody moved the
    layer. Any other layer is understood through its transform: its unit is converted to mm, its world
    is taken as LPS in array order.

    Args:
        layer: image or labels layer with two or three axes.

    Raises:
        InputError: the layer has other axes, or its transform shears.
    """
    return reader_of(layer)()


def reader_of(layer: Layer) -> Callable[[], Volume]:
    """What gives the `volume_of` a layer, for any thread: all but the voxels is read now.

    Raises:
        InputError: see `volume_of`.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    is_rgb = bool(getattr(layer, "rgb", False))
    shape = tuple(data.shape[:-1] if is_rgb else data.shape)
    if len(shape) not in _AXES:
        raise InputError(
            f"layer {layer.name} has {len(shape)} axes; a volume has 3, an image 2: "
            "extract one frame or channel first"
        )
    entry = layer.metadata.get(KEY, {})
    geometry, notes = entry.get("geometry"), list(entry.get("notes", ()))
    if geometry is None or geometry.shape != shape or not is_placed(layer):
        geometry = _geometry_of(layer, shape)
        if geometry.has_spacing and not _has_length(layer):
            notes.append("the layer states no unit: its scale was taken as millimetres")
    modality, name = entry.get("modality", ""), entry.get("id") or layer.name
    is_here = is_in_memory(layer)

    def read() -> Volume:
        array = np.asarray(data) if is_here else np.array(data)
        array = np.moveaxis(array, -1, 0) if is_rgb else array[None]
        return Volume(array, geometry, modality, name, tuple(notes))

    return read


def _matrix(layer: Layer) -> NDArray[np.float64]:
    """(n + 1, n + 1) data -> world of a layer, by its public transform."""
    n = layer.ndim
    origin = np.asarray(layer.data_to_world(np.zeros(n)))
    matrix = np.eye(n + 1)
    matrix[:-1, -1] = origin
    for axis, unit in enumerate(np.eye(n)):
        matrix[:-1, axis] = np.asarray(layer.data_to_world(unit)) - origin
    return matrix


def _is_at_home(layer: Layer, geometry: Geometry) -> bool:
    place = placement(geometry)
    inner = np.eye(geometry.ndim + 1)
    inner[:-1, :-1] = np.diag(place["scale"])
    inner[:-1, -1] = place["translate"]
    return bool(np.allclose(_matrix(layer), place["affine"] @ inner, atol=1e-4))


def _has_length(layer: Layer) -> bool:
    return all(unit.dimensionality == {"[length]": 1} for unit in layer.units)


def _geometry_of(layer: Layer, shape: tuple[int, ...]) -> Geometry:
    matrix = _matrix(layer)
    is_length = _has_length(layer)
    in_mm = [float((1 * unit).to("mm").magnitude) if is_length else 1.0 for unit in layer.units]
    columns = np.asarray(in_mm)[:, None] * matrix[:-1, :-1]
    spacing = np.linalg.norm(columns, axis=0)
    direction = columns / spacing
    if np.abs(direction.T @ direction - np.eye(len(shape))).max() > _LARGEST_SHEAR:
        raise InputError(f"layer {layer.name} is sheared; remove the shear from its transform first")
    has_spacing = is_length or not np.allclose(spacing, 1)
    origin = np.asarray(in_mm) * matrix[:-1, -1]
    return Geometry.from_arrays(shape, spacing, origin, direction, has_spacing=has_spacing)
