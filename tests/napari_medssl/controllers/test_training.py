"""A run is started, followed, stopped, found again, and its result used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.io import read_volume
from medssl.jobs.process import EVENTS_FILE, RunProcess
from medssl.volume import Volume
from napari_medssl.controllers.prediction import PredictionController
from napari_medssl.controllers.training import TrainingController
from napari_medssl.session import Session
from napari_medssl.widgets.training import TrainingWidget


class FakeProcess(RunProcess):
    """Follows real event files of a process that a test declares alive or dead."""

    def __init__(self, run: Path) -> None:
        super().__init__(run, 1, 0.0)
        self.alive = True

    @property
    def is_alive(self) -> bool:
        return self.alive


@pytest.fixture
def made(session: Session, engine: Any, runner: Any):
    widget = MagicMock(spec=TrainingWidget)
    widget.settings.return_value = {"steps": 20}
    started: list[FakeProcess] = []
    ended: list[str] = []

    def start(arguments: list[str], run: Path) -> FakeProcess:
        run.mkdir(parents=True)
        started.append(FakeProcess(run))
        return started[-1]

    controller = TrainingController(
        session,
        widget,
        engine,
        runner,
        every=lambda seconds, call: lambda: ended.append("timer"),
        report=runner.errors.append,
        start=start,
    )
    return controller, widget, started, ended


def say(run: Path, **event: Any) -> None:
    with (run / EVENTS_FILE).open("a") as file:
        file.write(json.dumps({"total": 20, "phase": "training", **event}) + "\n")


def test_start_follow_finish(made: tuple, session: Session, engine: Any, volume: Volume) -> None:
    controller, widget, started, ended = made
    controller.start()
    assert started == []  # no scan
    session.volume = session.scribbles = volume
    widget.setReady.assert_called_with(True)
    controller.start()
    assert engine.calls == [("order_training", session.project, {"steps": 20}, 3)]
    process = started[0]
    widget.setRunning.assert_called_with(True)
    say(process.run, step=1, metrics={"loss": 2.0})
    say(process.run, step=2, metrics={"loss": 1.0, "lr": 0.1, "held_out_dice": 0.5}, message="half way")
    controller.look()
    curves = {"loss": [(1.0, 2.0), (2.0, 1.0)], "held_out_dice": [(2.0, 0.5)]}
    assert widget.setCurves.call_args.args[0] == curves, "the learning rate is nothing to look at"
    widget.setProgress.assert_called_with(2, 20, "training")
    widget.setStatus.assert_called_with("half way")
    (process.run / "exported").mkdir()
    process.alive = False
    controller.look()
    assert ended == ["timer"]
    assert session.run == process.run
    widget.setRunning.assert_called_with(False)


def test_start_can_be_pressed_again_when_the_preparation_was_cancelled(
    made: tuple, session: Session, runner: Any, volume: Volume
) -> None:
    controller, widget, started, _ = made
    session.volume = session.scribbles = volume
    runner.cancelled = {"Preparing the training"}
    controller.start()
    assert started == []
    widget.setReady.assert_called_with(True)
    runner.cancelled = set()
    controller.start()
    assert len(started) == 1


def test_scans_that_training_does_without_are_named(
    made: tuple, session: Session, engine: Any, runner: Any, volume: Volume
) -> None:
    controller, _, started, _ = made
    engine.left_out = ("a.nii.gz: no such file",)
    session.volume = session.scribbles = volume
    controller.start()
    assert [str(error) for error in runner.errors] == [
        "Training goes on without this scan: a.nii.gz: no such file"
    ]
    assert len(started) == 1


def test_a_run_without_weights_says_its_last_words(made: tuple, session: Session, volume: Volume) -> None:
    controller, widget, started, _ = made
    session.volume = session.scribbles = volume
    controller.start()
    (started[0].run / "process.log").write_text("error: out of memory: use a smaller batch\n")
    started[0].alive = False
    controller.look()
    assert session.run is None
    assert "out of memory" in widget.setStatus.call_args.args[0]


def test_stop_leaves_a_stop_file(made: tuple, session: Session, volume: Volume) -> None:
    controller, widget, started, _ = made
    controller.stop()  # nothing runs
    session.volume = session.scribbles = volume
    controller.start()
    controller.stop()
    assert (started[0].run / "stop").exists()
    widget.setStopping.assert_called_once()


def test_a_process_that_cannot_start_is_reported(
    session: Session, engine: Any, runner: Any, volume: Volume
) -> None:
    def refuse(arguments: list[str], run: Path) -> RunProcess:
        raise InputError("process 7 is at work there")

    widget = MagicMock(spec=TrainingWidget)
    widget.settings.return_value = {}
    controller = TrainingController(
        session,
        widget,
        engine,
        runner,
        every=lambda seconds, call: lambda: None,
        report=runner.errors.append,
        start=refuse,
    )
    session.volume = session.scribbles = volume
    controller.start()
    assert "at work" in str(runner.errors[0])
    widget.setReady.assert_called_with(True)


def test_a_finished_run_of_the_project_is_found(session: Session, engine: Any, runner: Any) -> None:
    run = session.project / "runs" / "demo"
    (run / "exported").mkdir(parents=True)
    say(run, step=5, metrics={"loss": 0.5})
    widget = MagicMock(spec=TrainingWidget)
    TrainingController(
        session,
        widget,
        engine,
        runner,
        every=lambda seconds, call: lambda: None,
        report=runner.errors.append,
    )
    assert session.run == run
    assert widget.setCurves.call_args.args[0] == {"loss": [(5.0, 0.5)]}
    widget.setRunning.assert_called_with(False)


def test_the_result_segments_the_shown_scan(
    session: Session, engine: Any, runner: Any, volume: Volume
) -> None:
    widget = MagicMock(spec=TrainingWidget)
    controller = PredictionController(session, widget, engine, runner)
    widget.setUsable.assert_called_with(False)
    controller.predict()
    assert engine.calls == []
    session.volume, session.run = volume, Path("/runs/one")
    widget.setUsable.assert_called_with(True)
    controller.predict()
    assert engine.calls == [("predict", Path("/runs/one"))]
    assert session.segmentation is not None
    np.testing.assert_array_equal(session.segmentation.array, 1)


def test_the_segmentation_can_be_saved_while_it_is_shown(
    session: Session, engine: Any, runner: Any, volume: Volume, tmp_path: Path
) -> None:
    widget = MagicMock(spec=TrainingWidget)
    PredictionController(session, widget, engine, runner)
    save = widget.saveRequested.connect.call_args.args[0]
    save(str(tmp_path / "nothing.nii.gz"))
    session.volume = volume
    session.segmentation = volume.with_array(np.full(volume.geometry.shape, 3, np.uint8))
    widget.setSavable.assert_called_with(True)
    save(str(tmp_path / "mask.nii.gz"))
    session.segmentation = None
    widget.setSavable.assert_called_with(False)
    assert [path.name for path in tmp_path.glob("*.nii.gz")] == ["mask.nii.gz"]
    back = read_volume(tmp_path / "mask.nii.gz")
    assert back.geometry.matches(volume.geometry)
    np.testing.assert_array_equal(back.array, 3)
