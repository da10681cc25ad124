"""Panels: what the user does becomes a signal, what a setter shows becomes none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qtpy")

from napari_medssl.widgets.rows import ClusterRow, HitRow

pytestmark = pytest.mark.gui

CLASSES = ((1, "background", (9, 9, 9)), (2, "bone", (255, 0, 0)))


def listen(*signals: Any) -> list[Any]:
    heard: list[Any] = []
    for signal in signals:
        signal.connect(lambda *values: heard.append(values))
    return heard


def test_case(qtbot: Any) -> None:
    from napari_medssl.widgets.case import CaseWidget

    panel = CaseWidget()
    qtbot.addWidget(panel)
    heard = listen(panel.layerChosen, panel.seriesChosen, panel.modalityChosen, panel.windowChosen)
    panel.setLayers(["a", "b"], "b")
    panel.setSeries([("1.2", "CT thorax"), ("1.3", "CT abdomen")], "1.3")
    panel.setModality("MR")
    panel.setWindows(["Lung", "Bone"], "Bone")
    panel.setGeometryRows([("Spacing", "1 x 1 x 1 mm")])
    panel.setNotes(["modality inferred"])
    panel.setProject("/project")
    assert heard == []
    assert panel._layer.currentData() == "b"
    assert panel._series.currentData() == "1.3"
    assert not panel._series.isHidden()
    panel.setSeries([("1.2", "CT thorax")], "1.2")
    assert panel._series.isHidden()  # one series is no choice
    panel.setWindows(())
    assert panel._window.isHidden()
    panel._modality.setCurrentIndex(1)
    panel._modality.activated.emit(1)
    assert heard == [("CT",)]


def test_a_swatch_keeps_its_colour_in_the_chosen_line(qtbot: Any) -> None:
    from qtpy.QtGui import QIcon

    from napari_medssl.widgets.table import swatch

    normal, chosen = (
        swatch((230, 75, 53)).pixmap(14, 14, mode).toImage().pixelColor(7, 7).getRgb()
        for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected)
    )
    assert normal == chosen
    np.testing.assert_allclose(normal[:3], (230, 75, 53), atol=8)  # a screen of 16 bits rounds


def test_prototypes(qtbot: Any) -> None:
    from napari_medssl.widgets.prototypes import PrototypesWidget

    panel = PrototypesWidget()
    qtbot.addWidget(panel)
    heard = listen(panel.requested, panel.soloChanged, panel.opacityChanged)
    panel.setClusters([ClusterRow(3, (1, 2, 3), 0.75, 12.0), ClusterRow(1, (3, 2, 1), 0.25, None)])
    panel.setOpacity(0.3)
    panel.setSolo(3)
    assert heard == []
    assert [panel._table.item(0, c).text() for c in range(3)] == ["3", "75.0 %", "12 ml"]
    assert not panel._table.isColumnHidden(2)
    panel.setClusters([ClusterRow(1, (3, 2, 1), 1.0, None)])
    assert panel._table.isColumnHidden(2)  # a picture has no volume
    panel.setClusters([ClusterRow(3, (1, 2, 3), 0.75, 12.0), ClusterRow(1, (3, 2, 1), 0.25, None)])
    panel.setSolo(3)
    panel._table.cellClicked.emit(1, 0)
    panel._table.cellClicked.emit(0, 0)  # shown alone already: show all
    panel.setEnabledFor(False)
    panel._compute.click()
    assert heard == [(1,), (0,)]  # nothing to compute on: the button is off


def test_search(qtbot: Any) -> None:
    from napari_medssl.widgets.search import SearchWidget

    panel = SearchWidget()
    qtbot.addWidget(panel)
    heard = listen(panel.hitChosen, panel.accepted, panel.scopeChanged)
    rows = [HitRow(0.9, "", (1, 2, 3), "mm"), HitRow(0.8, "case-2", (4, 5, 6), "mm")]
    panel.setHits([HitRow(0.9, "", (2, 3), "")])
    assert panel._table.horizontalHeaderItem(2).text() == "Pixel y, x"
    panel.setHits(rows)
    assert panel._table.horizontalHeaderItem(2).text() == "Voxel z, y, x"
    panel.setClasses(CLASSES, 2)
    panel.setCohort("2 scans")
    panel.setScope("cohort")
    assert heard == []
    assert panel.scope() == "cohort"
    assert not panel._table.isColumnHidden(3)
    panel._table.selectRow(1)
    assert heard == [(1,)]
    panel.accept()
    assert heard == [(1,)]  # nothing to label yet
    panel.setReady(True)
    panel.accept()
    assert heard[-1] == ([1], 2)
    panel.setChosen(0)
    assert len(heard) == 2
    panel.accept()
    assert heard[-1] == ([0], 2)
    panel.setHits(rows[:1])
    assert panel._table.isColumnHidden(3)  # all in the shown scan
    panel.setCohort("")
    assert panel.scope() == "volume"


def test_labelling(qtbot: Any) -> None:
    from napari_medssl.widgets.labelling import LabellingWidget

    panel = LabellingWidget()
    qtbot.addWidget(panel)
    heard = listen(panel.classChosen, panel.classAdded, panel.classRenamed, panel.toolChosen)
    panel.setClasses(CLASSES, 2)
    panel.setTool("erase")
    panel.setBrush(5)
    assert heard == []
    assert panel._classes.currentRow() == 1
    assert [b.text() for b in panel._tools.buttons() if b.isChecked()] == ["Erase"]
    panel.setReady(True)
    panel._classes.setCurrentRow(0)
    panel._new.setText(" vessel ")
    panel._add.click()
    panel._classes.item(1).setText("femur")
    panel._tools.buttons()[0].click()
    assert heard == [(1,), ("vessel",), (2, "femur"), ("paint",)]


def test_renaming_does_not_replace_the_item_that_is_edited(qtbot: Any) -> None:
    from napari_medssl.widgets.labelling import LabellingWidget

    panel = LabellingWidget()
    qtbot.addWidget(panel)
    panel.setClasses(CLASSES, 1)
    item = panel._classes.item(1)
    panel.classRenamed.connect(lambda number, name: panel.setClasses((CLASSES[0], (2, name, (0, 0, 0))), 1))
    item.setText("femur")
    assert panel._classes.item(1) is item


def test_training(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_medssl.orders import FIRST_SETTINGS, MORE_SETTINGS, training_defaults
    from napari_medssl.widgets.training import TrainingWidget

    defaults = training_defaults()
    panel = TrainingWidget(type(defaults), FIRST_SETTINGS, MORE_SETTINGS)
    qtbot.addWidget(panel)
    panel.setSettings(defaults)
    assert panel.settings()["steps"] == defaults.steps
    assert panel.settings()["batch_size"] is None
    panel.setRunning(True)
    assert panel._start.isHidden()
    assert not panel._stop.isHidden()
    panel.setCurves({"loss": [(1, 2.0), (2, 1.0)], "dice": [(2, 0.5)], "empty": []})
    assert set(panel._curve.curves()) == {"loss", "dice"}
    panel.resize(300, 500)
    assert not panel.grab().isNull()  # paints without an error
    panel.setRunning(False)
    panel.setUsable(True)
    heard = listen(panel.useRequested, panel.saveRequested)
    assert not panel._save.isEnabled()
    panel.setSavable(True)
    for answer in ("", "/mask.nii.gz"):
        monkeypatch.setattr("napari_medssl.widgets.training.SaveDialog.ask", lambda _, answer=answer: answer)
        panel._save.click()
    panel._use.click()
    assert heard == [("/mask.nii.gz",), ()]


def test_choosing_a_format_changes_the_ending_of_the_name(qtbot: Any, tmp_path: Path) -> None:
    from napari_medssl.widgets.save_dialog import FORMATS, SaveDialog

    dialog = SaveDialog("proposal")
    qtbot.addWidget(dialog)
    dialog.setDirectory(str(tmp_path))
    assert Path(dialog.selectedFiles()[0]).name == "proposal.nii.gz"
    dialog.selectFile("left knee.v2.nii.gz")
    for chosen, ending in reversed(FORMATS.items()):
        dialog.selectNameFilter(chosen)
        dialog.filterSelected.emit(chosen)
        assert dialog.selectedFiles() == [str(tmp_path / f"left knee.v2{ending}")]


def test_job_panel(qtbot: Any) -> None:
    from napari_medssl.widgets.job_panel import JobPanel

    panel = JobPanel()
    qtbot.addWidget(panel)
    heard = listen(panel.cancelRequested)
    panel.setProgress("Embedding: tile", 3, 10)
    assert (panel._bar.value(), panel._bar.maximum()) == (3, 10)
    assert not panel._cancel.isHidden()
    panel._cancel.click()
    panel.setProgress("Search", 0, None)
    assert panel._bar.maximum() == 0
    panel.setIdle("Search: done.")
    assert panel._cancel.isHidden()
    assert heard == [()]
    assert panel.text() == "Search: done."


def test_main_shows_a_panel_by_name(qtbot: Any) -> None:
    from napari_medssl.orders import FIRST_SETTINGS, training_defaults
    from napari_medssl.widgets.main import MainWidget
    from napari_medssl.widgets.training import TrainingWidget

    panel = MainWidget(TrainingWidget(type(training_defaults()), FIRST_SETTINGS))
    qtbot.addWidget(panel)
    names = [panel.tabs.tabText(n) for n in range(panel.tabs.count())]
    assert names == ["Case", "Prototypes", "Find", "Label", "Train"]
    panel.show_panel("Label")
    assert panel.tabs.currentIndex() == 3
    assert panel.sizeHint().width() <= 360


def test_a_low_and_narrow_window_cuts_no_panel_at_the_side(qtbot: Any, qapp: Any) -> None:
    from napari_medssl.orders import FIRST_SETTINGS, MORE_SETTINGS, training_defaults
    from napari_medssl.widgets.main import MainWidget
    from napari_medssl.widgets.training import TrainingWidget

    panel = MainWidget(TrainingWidget(type(training_defaults()), FIRST_SETTINGS, MORE_SETTINGS))
    qtbot.addWidget(panel)
    panel.show()
    panel.resize(100, 150)
    for number in range(panel.tabs.count()):
        panel.tabs.setCurrentIndex(number)
        area = panel.tabs.widget(number)
        qapp.processEvents()
        assert area.verticalScrollBar().isVisible(), panel.tabs.tabText(number)
        assert area.widget().width() <= area.viewport().width(), panel.tabs.tabText(number)
    assert panel.width() <= 420  # and the image keeps the rest
