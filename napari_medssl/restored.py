"""What a project and the results beside it hold, put back into the session."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.errors import InputError
from medssl.io import list_series, read_volume
from medssl.store.project import VolumeEntry, series_key
from napari_medssl.engine import Clusters
from napari_medssl.session import Hit, Source

if TYPE_CHECKING:
    from medssl.volume import Volume
    from napari_medssl._entry import Plugin

logger = logging.getLogger(__name__)

PANEL = "Label"


def restore(plugin: Plugin, entry: VolumeEntry) -> None:
    """Show a scan of the project with everything that is known about it.

    Args:
        plugin: an opened plugin on the project.
        entry: the scan.

    Raises:
        InputError: the scan cannot be read any more.
    """
    session, project = plugin.session, plugin.session.project
    if project is None:
        raise InputError("no project is open")
    path = Path(entry.path) if Path(entry.path).is_absolute() else project / entry.path
    uid = next((s.uid for s in list_series(path) if series_key(s.uid) == entry.series), "")
    plugin.case.show(read_volume(path, uid or None), Source(path=path, series=uid))
    volume = session.volume
    if volume is None:
        return
    if (prototypes := _result(project, "prototypes.nii.gz", volume)) is not None:
        plugin.prototypes.show(Clusters.of(prototypes))
    if (segmentation := _result(project, "segmentation.nii.gz", volume)) is not None:
        session.segmentation = segmentation
    if (project / "index" / "index.json").is_file():
        plugin.search.open_index(str(project / "index"))
    _restore_hits(plugin, project)
    plugin.widget.show_panel(PANEL)


def _restore_hits(plugin: Plugin, project: Path) -> None:
    place = _find(project, "hits.json")
    if place is None:
        return
    try:
        values = json.loads(place.read_text(encoding="utf-8"))
        query = tuple(int(i) for i in values["query"]["voxel"])
        hits = tuple(_hit(entry) for entry in values["hits"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: cannot be read: %s", place, error)
        return
    plugin.session.query = query
    plugin.session.hits = hits
    plugin.session.focus = query


def _hit(entry: dict[str, Any]) -> Hit:
    return Hit(
        volume=str(entry["volume"]),
        voxel=tuple(int(i) for i in entry["voxel"]),
        mm=tuple(float(v) for v in entry["mm"]),
        score=float(entry["score"]),
    )


def _result(project: Path, name: str, volume: Volume) -> Volume | None:
    """A mask on the scan's grid, None where there is none; one on another grid is left out."""
    place = _find(project, name)
    if place is None:
        return None
    try:
        mask = read_volume(place)
    except InputError as error:
        logger.warning("%s", error)
        return None
    if not mask.geometry.matches(volume.geometry, tolerance=1e-2):
        logger.warning("%s lies on another grid than the scan and is not shown", place)
        return None
    return volume.with_array(mask.array[0])


def _find(project: Path, name: str) -> Path | None:
    places = (project / name, project.parent / name)
    return next((place for place in places if place.is_file()), None)
