from __future__ import annotations

import json
from pathlib import Path

import pytest

from medssl.config.pretrain import PretrainConfig
from medssl.config.training import TrainingConfig
from medssl.errors import InputError
from medssl.jobs.progress import Progress
from medssl.store.runs import Run
from medssl.training.meter import Meter


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
    (tmp_path / "run" / "stop").touch()  # Stop was pressed before the run had begun
    assert Run.create(tmp_path / "run", TrainingConfig()).stop_requested


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


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (InputError("no such mask"), False),
        (MemoryError(), False),
        (RuntimeError("CUDA out of memory"), False),
        (RuntimeError("a defect"), True),
        (OSError(28, "No space left on device", "x"), True),
        (KeyboardInterrupt(), True),
        (GeneratorExit(), True),
    ],
)
@pytest.mark.parametrize("was_there", [False, True])
def test_a_run_that_is_refused_before_its_first_step_leaves_its_place(
    tmp_path: Path, error: BaseException, stays: bool, was_there: bool
) -> None:
    folder = tmp_path / "runs" / "a"
    if was_there:
        folder.mkdir(parents=True)
        (folder / "process.log").write_text("of the viewer")
    run = Run.create(folder, TrainingConfig())
    (folder / "cache").mkdir()
    (folder / "cache" / "voxels.bin").write_bytes(b"x")
    with pytest.raises(type(error)), run.until_begun():
        raise error
    assert (folder / "config.yaml").exists() == stays
    assert (folder / "cache").exists() == stays
    assert folder.exists() == (stays or was_there)
    if was_there:
        assert (folder / "process.log").read_text() == "of the viewer"
    if not stays:
        Run.create(folder, TrainingConfig(steps=3))


@pytest.mark.parametrize("sign", ["event", "checkpoint", "opened", "step"])
def test_a_run_that_has_begun_stays(tmp_path: Path, sign: str) -> None:
    run = Run.create(tmp_path / "run", TrainingConfig())
    if sign == "event":
        run.log(Progress(1, 9, "training"))
    elif sign == "step":
        Meter(9, run).add({"loss": 1.0})
    elif sign == "checkpoint":
        run.checkpoint(1).write_bytes(b"x")
    else:
        run = Run.open(tmp_path / "run")
    with pytest.raises(InputError), run.until_begun():
        raise InputError("later")
    assert (run.folder / "config.yaml").is_file()


def test_a_changed_learning_rate_is_kept_for_the_next_resume(tmp_path: Path) -> None:
    config = PretrainConfig(method="swav", data=Path("d"), out=tmp_path / "run", seed=5)
    run = Run.create(config.out, config)
    mended = config.training.model_copy(update={"lr": 1e-5})
    run.restate(mended.model_dump(mode="json"))
    stored = PretrainConfig.from_yaml(run.folder / "config.yaml")
    assert stored == config.model_copy(update={"training": mended})
