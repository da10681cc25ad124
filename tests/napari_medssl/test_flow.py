"""The whole road in a real viewer: open, map, find, label, train, use, reopen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medssl.data.phantom import ct_phantom
from medssl.io import write_volume
from medssl.jobs.progress import drain
from medssl.store.project import Project
from medssl.volume import Geometry, Volume
from napari_medssl import layers
from napari_medssl.session import Pick

pytest.importorskip("napari")

from qtpy.QtCore import Qt

pytestmark = pytest.mark.gui


@pytest.fixture
def scan(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A bright ball in a dark box, with thick slices and an oblique direction."""
    angle = np.deg2rad(15)
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    grid = Geometry.from_arrays((20, 40, 44), (2.0, 1.0, 1.0), (3.0, 4.0, 5.0), turned)
    z, y, x = np.indices(grid.shape)
    ball = ((z - 10) * 2) ** 2 + (y - 20) ** 2 + (x - 22) ** 2 < 12**2
    array = np.where(ball, 700, 200) + rng.normal(0, 20, grid.shape)
    path = tmp_path / "ball_mr.nii.gz"
    write_volume(Volume(array.astype(np.int16)[None], grid, modality="MR"), path)
    return path


def make_plugin(make_viewer: Any, project: Path, weights: Path, show: bool = False) -> Any:
    from napari_medssl.engine import Engine
    from napari_medssl.plugin import Plugin
    from napari_medssl.workers import Workers

    viewer = make_viewer(show=show)
    plugin = Plugin(
        viewer, project=project, engine=Engine(str(weights), "cpu"), workers=Workers(is_synchronous=True)
    )
    viewer.window.add_dock_widget(plugin.widget, name="MedSSL")
    return plugin


def test_the_whole_road(
    make_napari_viewer: Any, scan: Path, tmp_path: Path, tiny_weights: dict[int, Path]
) -> None:
    project = tmp_path / "project"
    plugin = make_plugin(make_napari_viewer, project, tiny_weights[3])
    session, widget = plugin.session, plugin.widget

    widget.case.openRequested.emit(str(scan))
    assert session.volume.modality == "MR"
    image = plugin.scene.find("image")
    np.testing.assert_allclose(image.scale, (2, 1, 1))
    assert any("oblique" in widget.case._geometry.itemAt(n).widget().text() for n in range(8))

    widget.prototypes.requested.emit(4)
    prototypes = plugin.scene.find("prototypes")
    assert set(np.unique(prototypes.data)) <= {0, 1, 2, 3, 4}
    assert widget.prototypes._table.rowCount() == len(set(np.unique(prototypes.data)) - {0})
    widget.prototypes._table.cellClicked.emit(0, 0)
    assert prototypes.show_selected_label

    widget.search._pick.click()
    assert session.picking == Pick.QUERY
    plugin.scene._pointer.pick(tuple(image.data_to_world((10, 20, 22))))
    assert session.query == (10, 20, 22)
    assert session.hits
    assert all(0 <= i < n for hit in session.hits for i, n in zip(hit.voxel, (20, 40, 44), strict=True))
    widget.search._table.selectRow(0)
    assert session.focus == session.hits[0].voxel
    widget.search._pick.click()
    paint_and_reopen(plugin, make_napari_viewer, scan, tiny_weights[3])


def paint_and_reopen(plugin: Any, make_viewer: Any, scan: Path, weights: Path) -> None:
    session, widget, viewer = plugin.session, plugin.widget, plugin.viewer
    widget.labelling._tools.buttons()[0].click()
    scribbles = plugin.scene.find("scribbles")
    assert viewer.layers.selection.active is scribbles
    assert scribbles.mode == "paint"
    session.active_class = 2
    scribbles.paint((10, 20, 22), 2)
    scribbles.paint((9, 18, 24), 2)
    session.active_class = 1
    scribbles.paint((3, 5, 5), 1)
    scribbles.paint((16, 36, 40), 1)
    proposal = plugin.scene.find("proposal")
    assert proposal.data[10, 20, 22] == 2
    assert proposal.data[3, 5, 5] == 1
    widget.search.accepted.emit([0], 2)
    painted = scribbles.data.copy()

    exported = scan.parent / "proposal.nii.gz"
    widget.labelling.exportRequested.emit("proposal", str(exported))
    import SimpleITK as sitk

    mask, source = sitk.ReadImage(str(exported)), sitk.ReadImage(str(scan))
    np.testing.assert_allclose(mask.GetDirection(), source.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(mask.GetOrigin(), source.GetOrigin(), atol=1e-4)

    assert widget.training._start.isEnabled()
    plugin.close()
    viewer.close()

    later = make_plugin(make_viewer, session.project, weights)
    later.case.open(str(scan))
    np.testing.assert_array_equal(later.scene.find("scribbles").data, painted)
    np.testing.assert_array_equal(later.scene.find("proposal").data, proposal.data)
    later.close()


def click(qtbot: Any, viewer: Any, position: Any) -> None:
    """Click with the mouse at a place of the world, brought to the middle of the canvas."""
    viewer.dims.point = tuple(position)
    viewer.scene.camera.center = tuple(position)
    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.waitUntil(canvas.isVisible)
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())


def test_a_hit_in_another_scan_is_opened_and_becomes_a_label(
    make_napari_viewer: Any, qtbot: Any, tmp_path: Path, tiny_weights: dict[int, Path]
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    phantoms = [ct_phantom((40, 64, 64), (2.5, 2.0, 2.0), seed, lesions=0) for seed in (1, 2)]
    paths = [scans / f"{phantom.volume.id}.nii.gz" for phantom in phantoms]
    for phantom, path in zip(phantoms, paths, strict=True):
        write_volume(phantom.volume, path)
    project = tmp_path / "project"
    plugin = make_plugin(make_napari_viewer, project, tiny_weights[3], show=True)
    session, find = plugin.session, plugin.widget.search
    find.buildRequested.emit(str(scans))
    assert "2 scans" in find._cohort.text()
    assert find.scope() == "cohort"

    plugin.widget.case.openRequested.emit(str(paths[0]))
    find._top.setValue(40)
    find._pick.click()
    right_kidney = phantoms[0].labels.array[0, :, :, :32] == 5
    kidney = tuple(int(i) for i in np.argwhere(right_kidney).mean(0))
    click(qtbot, plugin.viewer, layers.displayed_position(session.volume.geometry, kidney))
    assert session.query == kidney
    lines = [n for n, hit in enumerate(session.hits) if Path(hit.path) == paths[1]]
    assert lines, "no hit in the other scan"
    assert find._table.item(lines[0], 3).text() == session.hits[lines[0]].volume
    before = plugin.labelling._store.restore()

    find._table.selectRow(lines[0])
    hit = session.hits[lines[0]]
    assert session.source.path == paths[1]
    geometry = session.volume.geometry
    np.testing.assert_allclose(geometry.to_world(hit.voxel)[::-1], hit.mm, atol=max(geometry.spacing) / 2)
    image = plugin.scene.find("image")
    assert round(image.world_to_data(plugin.viewer.dims.point)[0]) == hit.voxel[0]
    np.testing.assert_array_equal(
        plugin.scene.find("hits").data, [h.voxel for h in session.hits if session.is_here(h)]
    )
    assert find._table.item(lines[0], 3).text() == ""
    assert {index.row() for index in find._table.selectedIndexes()} == {lines[0]}

    session.active_class = 2
    find._accept.click()
    assert plugin.scene.find("scribbles").data[hit.voxel] == 2
    np.testing.assert_array_equal(plugin.labelling._store.restore(), session.scribbles.array[0])
    assert len(Project.open(project).volumes) == 2

    back = next(n for n, hit in enumerate(session.hits) if Path(hit.path) == paths[0])
    find._table.selectRow(back)
    assert session.source.path == paths[0]
    assert session.query == kidney
    np.testing.assert_array_equal(plugin.labelling._store.restore(), before)
    plugin.close()


def test_the_widget_of_the_manifest_takes_an_open_layer_and_journals_strokes(
    make_napari_viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(np.random.default_rng(0).random((8, 20, 20)), scale=(3, 1, 1), name="theirs")
    _, widget = viewer.window.add_plugin_dock_widget("napari-medssl", "MedSSL")
    plugin = widget.plugin
    try:
        plugin.session.project = tmp_path / "project"
        assert plugin.session.source.layer == "theirs"
        assert plugin.session.volume.geometry.spacing == (3, 1, 1)
        qtbot.waitUntil(lambda: plugin.scene.find("scribbles") is not None, timeout=120_000)
        layer = viewer.layers["MedSSL scribbles"]  # napari hands the plugin a proxy of the viewer
        layer.paint((4, 10, 10), 2)
        assert plugin.labelling._store.restore()[4, 10, 10] == 2
        plugin.session.tool = "paint"
        assert viewer.layers.selection.active is layer
        plugin.labelling.undo()
        assert layer.data.sum() == 0
    finally:
        plugin.close()


def test_a_sample_without_a_file_can_be_labelled_and_trained_on(
    make_napari_viewer: Any, tmp_path: Path, tiny_weights: dict[int, Path]
) -> None:
    plugin = make_plugin(make_napari_viewer, tmp_path / "project", tiny_weights[3])
    plugin.viewer.open_sample("napari-medssl", "ct-phantom")
    plugin.labelling._set_automatic(False)
    scribbles = plugin.scene.find("scribbles")
    for place, value in (((48, 20, 20), 1), ((48, 60, 60), 2)):
        scribbles.paint(place, value)
    order = drain(plugin.engine.order_training(plugin.session.project, {"steps": 4}))
    (entry,) = Project.open(plugin.session.project).volumes
    table = Path(order.arguments[order.arguments.index("--data") + 1]).read_text()
    assert str(plugin.session.project / "volumes" / f"{entry.id}.nii.gz") in table
    assert order.left_out == ()
    plugin.close()


def test_a_lazy_layer_is_not_computed_before_it_is_chosen(
    make_napari_viewer: Any, tmp_path: Path, tiny_weights: dict[int, Path]
) -> None:
    dask = pytest.importorskip("dask.array")
    plugin = make_plugin(make_napari_viewer, tmp_path / "project", tiny_weights[3])
    blocks: list[int] = []

    def block(block_info: Any = None) -> np.ndarray:
        blocks.append(1)
        return np.zeros((1, 16, 16), np.uint8)

    lazy = dask.map_blocks(block, chunks=((1,) * 50, (16,), (16,)), dtype=np.uint8)
    plugin.viewer.add_image(lazy, name="lazy", contrast_limits=(0, 1))
    assert len(blocks) < 10, "the viewer itself asks for the shown slice"
    assert plugin.session.volume is None
    box = plugin.widget.case._layer
    assert box.findData("lazy") >= 0
    plugin.widget.case.layerChosen.emit("lazy")
    assert len(blocks) >= 50
    assert isinstance(plugin.session.volume.array, np.ndarray)
    plugin.viewer.layers["lazy"].name = "other name"
    assert box.currentText() == "other name"
    plugin.close()


@pytest.mark.slow
def test_training_in_its_own_process(
    make_napari_viewer: Any, qtbot: Any, scan: Path, tmp_path: Path, tiny_weights: dict[int, Path]
) -> None:
    plugin = make_plugin(make_napari_viewer, tmp_path / "project", tiny_weights[3])
    session, widget = plugin.session, plugin.widget
    plugin.case.open(str(scan))
    scribbles = plugin.scene.find("scribbles")
    scribbles.brush_size = 6
    for z in (8, 10, 12):
        scribbles.paint((z, 20, 22), 2)
        scribbles.paint((z, 5, 5), 1)
        scribbles.paint((z, 35, 38), 1)
    widget.training._first._rows["steps"].value = 4
    widget.training._start.click()
    qtbot.waitUntil(widget.training._stop.isHidden, timeout=500_000)
    assert session.run is not None, widget.training._status.text()
    widget.training._use.click()
    assert plugin.scene.find("segmentation").data.shape == (20, 40, 44)
    plugin.close()
