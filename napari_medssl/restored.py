"""What a project and the results beside it hold, put back into the session."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.errors import InputError
from medssl.io import list_series, read_volume
from medssl.io.tables import detections_from_json, read_json
from medssl.store.project import VolumeEntry, series_key
from napari_medssl.engine import Clusters
from napari_medssl.session import Detections, Hit, Source

if TYPE_CHECKING:
    from medssl.volume import Volume
    from napari_medssl.plugin import Plugin

logger = logging.getLogger(__name__)

PANEL = "Label"
NEAR_MM = 2.5
"""How far from its own slice the marker of a hit is still seen."""


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
    if session.scribbles is None:  # read on the device thread; the slice to show depends on them
        _when_labelled(plugin)
    if (prototypes := _result(project, "prototypes.nii.gz", volume)) is not None:
        plugin.prototypes.show(Clusters.of(prototypes))
    if session.proposal is None:
        session.proposal = _result(project, "probe.nii.gz", volume)
    if (segmentation := _result(project, "segmentation.nii.gz", volume)) is not None:
        session.segmentation = segmentation
    if (project / "index" / "index.json").is_file():
        plugin.search.open_index(str(project / "index"))
    session.detections = _detections(project, volume)
    _restore_hits(plugin, project)
    _arrange(plugin)
    plugin.widget.show_panel(PANEL)


def _when_labelled(plugin: Plugin) -> None:
    """Arrange the layers once more when the scribbles have come."""

    def arrived(scribbles: Volume | None) -> None:
        if scribbles is not None:
            plugin.session.events.scribbles.disconnect(arrived)
            _arrange(plugin)

    plugin.session.events.scribbles.connect(arrived)


def _arrange(plugin: Plugin) -> None:
    """Outlines of the result over the map, on the slice where hits and scribbles meet."""
    scene, session = plugin.scene, plugin.session
    result = scene.find("segmentation") or scene.find("proposal")
    if result is not None:
        result.contour, result.opacity, result.visible = 2, 1.0, True
    if (prototypes := scene.find("prototypes")) is not None:
        prototypes.visible = True
    if session.scribbles is not None and session.scribbles.spatial_dims > 2:
        places = [hit.voxel for hit in session.hits if session.is_here(hit)]
        places += [session.query] if session.query is not None else []
        session.focus = _best_slice(session.scribbles, places)


def _best_slice(scribbles: Volume, places: list[tuple[int, ...]]) -> tuple[int, ...]:
    """A voxel on the scribbled slice that shows most hits; the last place where nothing is scribbled."""
    painted = np.count_nonzero(scribbles.array[0], axis=(1, 2))
    slices = np.arange(len(painted)) * scribbles.geometry.spacing[0]
    near = sum((np.abs(slices - slices[place[0]]) <= NEAR_MM).astype(int) for place in places)
    centre = places[-1] if places else tuple(n // 2 for n in scribbles.geometry.shape)
    best = np.where(painted > 0, near * scribbles.array.size + painted, 0)
    return (int(best.argmax()), *centre[1:]) if best.any() else centre


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
    plugin.search.show(query, hits)
    plugin.session.focus = query


def _detections(project: Path, volume: Volume) -> Detections | None:
    """The boxes of ``detections.json``, None where there is none or it is of another scan."""
    place = _find(project, "detections.json")
    if place is None:
        return None
    try:
        values = read_json(place)
        boxes = tuple(detections_from_json(values))
        model, note = str(values.get("model", "")), str(values.get("note", ""))
    except (InputError, AttributeError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: cannot be read: %s", place, error)
        return None
    shape = volume.geometry.shape
    if any(len(box.stop) != len(shape) or any(np.greater(box.stop, shape)) for box in boxes):
        logger.warning("%s holds boxes outside the scan and is not shown", place)
        return None
    return Detections(boxes, model, note)


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
