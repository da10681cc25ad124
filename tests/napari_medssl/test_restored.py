"""A project and the results beside it come back into the viewer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medssl.io import read_volume, write_volume
from medssl.io.tables import detections_to_json
from medssl.store.edits import Edit
from medssl.store.labels import LabelStore
from medssl.store.project import Project
from medssl.volume import Volume
from medssl.volume.regions import Box

pytest.importorskip("napari")


@pytest.fixture
def demo(tmp_path: Path, volume: Volume) -> Path:
    """What ``medssl demo --out`` leaves: results in a folder, the project in a folder below."""
    out = tmp_path / "out"
    project = Project.create(out / "project")
    write_volume(volume, out / "scan_ct.nii.gz")
    entry = project.add_volume(volume, out / "scan_ct.nii.gz")
    project.add_class("background")
    project.add_class("bone")
    store = LabelStore(project, entry.id)
    ones = np.ones((1, 3, 3), np.uint8)
    for start, value in (((2, 5, 5), 1), ((6, 20, 20), 2)):
        store.journal.append(Edit(start, ones * 0, ones * value, value, "demo"))
    store.close()
    grid = np.indices(volume.geometry.shape).sum(0)
    write_volume(volume.with_array((grid % 4).astype(np.uint8)), out / "prototypes.nii.gz")
    write_volume(volume.with_array((grid % 2 + 1).astype(np.uint8)), out / "probe.nii.gz")
    name = read_volume(out / "scan_ct.nii.gz").id
    hits = {
        "query": {"volume": name, "voxel": [9, 8, 7]},
        "hits": [{"volume": name, "voxel": [6, 10, 10], "mm": [1, 2, 3], "score": 0.9}],
    }
    (out / "hits.json").write_text(json.dumps(hits))
    boxes = [Box((6, 9, 8), (8, 12, 12), "lesion", 0.7)]
    detections = detections_to_json(boxes, volume.geometry, model="some-weights", note="of a phantom")
    (out / "detections.json").write_text(json.dumps(detections))
    return out


@pytest.mark.gui
def test_everything_comes_back(demo: Path, make_napari_viewer: Any) -> None:
    from napari_medssl.plugin import Plugin
    from napari_medssl.restored import restore
    from napari_medssl.workers import Workers

    project = demo / "project"
    plugin = Plugin(make_napari_viewer(), project=project, workers=Workers(is_synchronous=True))
    restore(plugin, Project.open(project).volumes[0])
    session = plugin.session
    assert session.volume.modality == "CT"
    assert session.query == (9, 8, 7)
    assert int((session.scribbles.array > 0).sum()) == 18
    assert int(session.proposal.array.max()) == 2
    assert session.prototypes is not None
    assert plugin.scene.find("proposal").contour == 2
    assert plugin.scene.find("prototypes").visible
    assert session.focus[0] == 6  # where a hit and a scribble meet
    assert len(plugin.scene.find("detections").data) == 2 + 3 + 4
    assert plugin.scene.find("detections").name == "MedSSL boxes (of a phantom)"
    plugin.close()


@pytest.mark.gui
def test_boxes_that_do_not_fit_are_left_out(demo: Path, make_napari_viewer: Any) -> None:
    from napari_medssl.plugin import Plugin
    from napari_medssl.restored import restore
    from napari_medssl.workers import Workers

    project = demo / "project"
    plugin = Plugin(make_napari_viewer(), project=project, workers=Workers(is_synchronous=True))
    outside = {"voxel": [0, 0, 0, 99, 2, 2], "class": "lesion", "score": 0.5}
    for content in ('{"boxes": 3}', "[]", "no json", json.dumps({"boxes": [outside]})):
        (demo / "detections.json").write_text(content)
        restore(plugin, Project.open(project).volumes[0])
        assert plugin.session.detections is None
        assert plugin.session.query == (9, 8, 7)
    plugin.close()


@pytest.mark.gui
def test_labels_that_come_later_choose_the_slice(demo: Path, make_napari_viewer: Any, qtbot: Any) -> None:
    from napari_medssl.plugin import Plugin
    from napari_medssl.restored import restore

    project = demo / "project"
    plugin = Plugin(make_napari_viewer(), project=project)  # reads on the device thread
    try:
        restore(plugin, Project.open(project).volumes[0])
        session = plugin.session
        qtbot.waitUntil(lambda: session.scribbles is not None and session.focus[0] == 6, timeout=120_000)
        assert plugin.scene.find("proposal").contour == 2
        assert plugin.scene.find("prototypes").visible
    finally:
        plugin.close()


@pytest.mark.gui
@pytest.mark.slow
def test_the_screenshot_of_the_command(demo: Path, tmp_path: Path, qapp: Any) -> None:
    picture = tmp_path / "shots" / "picture.png"
    command = [sys.executable, "-m", "napari_medssl", "--project", str(demo / "project")]
    command += ["--screenshot", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    import imageio.v3

    pixels = imageio.v3.imread(picture)
    assert pixels.shape[0] > 500
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


def test_a_folder_that_is_no_project_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from napari_medssl.__main__ import main

    assert main(["--project", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    Project.create(tmp_path / "empty")
    assert main(["--project", str(tmp_path / "empty")]) == 2
    assert "no scan yet" in capsys.readouterr().err
