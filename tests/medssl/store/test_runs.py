from __future__ import annotations

import json
from pathlib import Path

import pytest

from medssl.config.training import TrainingConfig
from medssl.errors import InputError
from medssl.jobs.progress import Progress
from medssl.store.runs import Run


def test_settings_and_environment_are_on_disk_before_the_first_step(tmp_path: Path) -> None:
    config = TrainingConfig(steps=12)
    run = Run.create(tmp_path / "run", config, device="cpu", seed=3)
    assert TrainingConfig.from_yaml(run.folder / "config.yaml") == config
    values = json.loads((run.folder / "environment.json").read_text())
    assert (values["device"], values["seed"]) == ("cpu", 3)
    assert {"python", "packages", "git", "platform"} <= values.keys()
    assert values["packages"]["torch"] != "absent"


def test_events_are_appended_with_their_time_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", TrainingConfig())
    run.log(Progress(1, 9, "training", {"loss": 2.5}, "hello"))
    run.log(Progress(2, None, "training"))
    with (run.folder / "events.jsonl").open("a") as stream:
        stream.write('{"time": 1, "st')
    first, second = run.events()
    assert (first["step"], first["total"], first["metrics"], first["message"]) == (
        1,
        9,
        {"loss": 2.5},
        "hello",
    )
    assert second["total"] is None
    assert second["time"] >= first["time"] > 1.6e9


def test_a_folder_with_a_run_or_with_something_else_is_refused(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", TrainingConfig())
    with pytest.raises(InputError, match="--resume"):
        Run.create(tmp_path / "run", TrainingConfig())
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(InputError, match="not empty"):
        Run.create(tmp_path / "letters", TrainingConfig())
    with pytest.raises(InputError, match=r"no config\.yaml"):
        Run.open(tmp_path / "letters")


def test_process_files_of_the_viewer_may_be_there_first(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "process.json").write_text("{}")
    (tmp_path / "run" / "process.log").write_text("")
    assert Run.create(tmp_path / "run", TrainingConfig()).folder.is_dir()


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", TrainingConfig())
    for step in (5, 100, 20):
        run.checkpoint(step).write_bytes(b"x")
    run.prune(2)
    assert run.checkpoints() == [run.checkpoint(20), run.checkpoint(100)]
    (run.folder / "stop").touch()
    assert run.stop_requested
    run.clear_stop()
    assert not run.stop_requested
