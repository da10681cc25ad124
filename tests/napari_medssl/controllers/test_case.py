"""Opening, choosing, describing a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.io import write_volume
from medssl.volume import Geometry, Volume
from napari_medssl.controllers.case import CaseController, describe, tilt_degrees
from napari_medssl.controllers.windows import first_limits, preset_limits
from napari_medssl.session import Session, Source
from napari_medssl.widgets.case import CaseWidget


@pytest.fixture
def made(session: Session, engine: Any, runner: Any, volume: Volume) -> tuple[CaseController, MagicMock]:
    widget = MagicMock(spec=CaseWidget)
    controller = CaseController(
        session,
        widget,
        engine,
        runner,
        volume_of_layer=lambda name: (volume, Source(layer=name)),
        report=runner.errors.append,
    )
    return controller, widget


def test_opening_a_file_fills_session_and_panel(
    made: tuple, session: Session, volume: Volume, tmp_path: Path
) -> None:
    controller, widget = made
    path = tmp_path / "scan_ct.nii.gz"
    write_volume(volume, path)
    controller.open(str(path))
    assert session.volume is not None
    np.testing.assert_array_equal(session.volume.array, volume.array)
    assert session.source == Source(path=path)
    assert session.window == (-160, 240)  # soft tissue
    widget.setModality.assert_called_with("CT")
    rows = dict(widget.setGeometryRows.call_args.args[0])
    assert rows["Voxels"] == "12 x 40 x 36  (z, y, x)"
    assert rows["Spacing"] == "3 x 1 x 1 mm"
    assert "HU" in rows["Values"]


def test_a_missing_file_is_one_clear_error(made: tuple, session: Session, runner: Any) -> None:
    made[0].open("/nowhere/scan.nii.gz")
    assert session.volume is None
    assert "no such file" in str(runner.errors[0])


def test_taking_a_layer_keeps_its_contrast(made: tuple, session: Session, volume: Volume) -> None:
    controller, _ = made
    controller.take_layer("theirs")
    assert session.volume is volume
    assert session.source == Source(layer="theirs")
    assert session.window is None
    controller.take_layer("")
    assert session.source.layer == "theirs"


def test_a_layer_that_is_not_in_memory_is_read_as_a_job(
    session: Session, engine: Any, runner: Any, volume: Volume
) -> None:
    read: list[str] = []

    def reader() -> Volume:
        read.append(runner.titles[-1])
        return volume

    controller = CaseController(
        session,
        MagicMock(spec=CaseWidget),
        engine,
        runner,
        volume_of_layer=lambda name: (reader, Source(layer=name)),
        report=runner.errors.append,
    )
    controller.take_layer("lazy")
    assert read == ["Reading lazy"]
    assert session.volume is volume
    assert session.source == Source(layer="lazy")


def test_a_layer_that_cannot_be_used_is_reported(session: Session, engine: Any, runner: Any) -> None:
    def refuse(name: str) -> tuple[Volume, Source]:
        raise InputError(f"layer {name} has 4 axes")

    widget = MagicMock(spec=CaseWidget)
    controller = CaseController(
        session, widget, engine, runner, volume_of_layer=refuse, report=runner.errors.append
    )
    controller.take_layer("movie")
    assert session.volume is None
    assert "4 axes" in str(runner.errors[0])


def test_a_new_scan_clears_what_belonged_to_the_old_one(
    made: tuple, session: Session, volume: Volume
) -> None:
    session.proposal = session.prototypes = session.segmentation = volume
    made[0].show(volume, Source())
    assert session.proposal is None
    assert session.prototypes is None
    assert session.segmentation is None


def test_modality_chosen_by_the_user_is_kept_with_the_volume(made: tuple, session: Session) -> None:
    controller, widget = made
    controller.take_layer("theirs")
    controller.set_modality("MR")
    assert session.volume is not None
    assert session.volume.modality == "MR"
    widget.setWindows.assert_called_with((), "")


def test_a_preset_is_told_again_after_dragging(made: tuple, session: Session) -> None:
    told: list[Any] = []
    session.events.window.connect(told.append)
    for _ in range(2):
        made[0].set_window("Lung")
    assert [limits for limits in told if limits] == [(-1350, 150)] * 2


def test_window_presets() -> None:
    assert preset_limits("Lung") == (-1350, 150)
    grid = Geometry.from_arrays((4, 4, 4))
    mr = Volume(np.linspace(0, 100, 64).reshape(1, 4, 4, 4), grid, modality="MR")
    low, high = first_limits(mr)
    assert 0 <= low < high <= 100


def test_oblique_scans_say_so(session: Session) -> None:
    angle = np.deg2rad(10)
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    grid = Geometry.from_arrays((3, 3, 3), direction=turned)
    assert tilt_degrees(grid) == pytest.approx(10)
    rows = dict(describe(Volume(np.zeros((1, 3, 3, 3)), grid)))
    assert "oblique by 10.0°" in rows["Axes run to"]


def test_a_picture_without_size_says_so() -> None:
    grid = Geometry.from_arrays((5, 6), has_spacing=False)
    rows = dict(describe(Volume(np.zeros((1, 5, 6)), grid)))
    assert rows["Pixels"] == "5 x 6  (y, x)"
    assert "no physical size" in rows["Spacing"]
    assert "Extent" not in rows


def test_a_project_must_be_a_folder(made: tuple, session: Session, runner: Any, tmp_path: Path) -> None:
    controller, widget = made
    file = tmp_path / "file"
    file.touch()
    controller.set_project(str(file))
    assert "not a folder" in str(runner.errors[0])
    controller.set_project(str(tmp_path / "other"))
    assert session.project == tmp_path / "other"
    widget.setProject.assert_called_with(str(tmp_path / "other"))
