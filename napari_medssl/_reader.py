"""Opens scans by drag and drop and File > Open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

LayerTuple = tuple[Any, dict[str, Any], str]

_LABEL_WORDS = ("label", "mask", "seg", "scribbles", "proposal", "prototypes", "probe")
_MOST_LABELS = 64


def get_reader(path: str | list[str]) -> Callable[[Any], list[LayerTuple]] | None:
    """The reader for one path, None where it is not ours; decided without loading the image.

    A list of files is taken as one DICOM series when all lie in one folder.

    Args:
        path: file, folder, or files.
    """
    from medssl.io.formats import image_suffix

    paths = [Path(entry) for entry in ([path] if isinstance(path, str) else path)]
    if len(paths) > 1:
        is_series = len({entry.parent for entry in paths}) == 1 and all(_is_dicom(p) for p in paths)
        return read if is_series else None
    place = paths[0]
    if place.is_dir():
        return read if any(_is_dicom(entry) for entry in _first_files(place)) else None
    return read if image_suffix(place) or _is_dicom(place) else None


def read(path: str | list[str]) -> list[LayerTuple]:
    """Read one image as a layer.

    Args:
        path: file or folder; of several files, their folder.
    """
    from medssl.io import read_volume

    place = Path(path) if isinstance(path, str) else Path(path[0]).parent
    volume = read_volume(place)
    return [layer_for(volume, place)]


def layer_for(volume: Any, place: Path) -> LayerTuple:
    """The layer that suits a volume: labels where the file is a mask, an image otherwise."""
    from napari_medssl.controllers.windows import first_limits
    from napari_medssl.layers import image_layer, labels_layer

    metadata = {"path": str(place)}
    name = volume.id or place.name
    if _is_mask(volume, place):
        return labels_layer(volume, name, "labels", metadata=metadata)
    options = {"metadata": metadata}
    if len(volume.array) == 1:
        options |= {"colormap": "gray", "contrast_limits": first_limits(volume)}
    return image_layer(volume, name, **options)


def _is_mask(volume: Any, place: Path) -> bool:
    """Few small whole numbers, in a file whose name says so: an 8-bit scan is not a mask."""
    array = volume.array
    words = place.name.lower()
    if array.dtype.kind not in "iu" or len(array) > 1 or not any(word in words for word in _LABEL_WORDS):
        return False
    return bool(array.min() >= 0 and array.max() <= _MOST_LABELS)


def _is_dicom(place: Path) -> bool:
    from medssl.io.formats import looks_like_dicom

    try:
        with place.open("rb") as handle:
            return looks_like_dicom(handle.read(132))
    except OSError:
        return False


def _first_files(folder: Path, count: int = 20) -> list[Path]:
    """Some files of a folder and of its first folders below."""
    found: list[Path] = []
    waiting = [folder]
    while waiting and len(found) < count:
        entries = sorted(waiting.pop(0).iterdir())
        found += [entry for entry in entries if entry.is_file()][: count - len(found)]
        waiting += [entry for entry in entries if entry.is_dir()]
    return found
