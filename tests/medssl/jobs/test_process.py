"""A training process is started, followed, stopped and found again."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from medssl.errors import InputError
from medssl.jobs import process as module
from medssl.jobs.process import EVENTS_FILE, PROCESS_FILE, STOP_FILE, RunProcess
from medssl.jobs.progress import Progress

WORKER = """
import json, sys, time
from pathlib import Path
run = Path(sys.argv[-1])
print("worker begins", flush=True)
for step in range(2000):
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "total": 2000, "phase": "training",
                               "metrics": {"loss": 1 / (1 + step)}, "time": time.time()}) + "\\n")
    if (run / "stop").exists():
        print("saved and stopped", flush=True)
        sys.exit(0)
    time.sleep(0.02)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let ``python -m medssl`` be a small script: `RunProcess` knows nothing of what it runs."""
    package = tmp_path / "path" / "medssl"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return tmp_path / "run"


def follow(process: RunProcess, count: int) -> list[Progress]:
    events: list[Progress] = []
    deadline = time.monotonic() + 20
    while len(events) < count and time.monotonic() < deadline:
        events += process.events()
        time.sleep(0.02)
    return events


def test_start_follow_stop(worker: Path) -> None:
    process = RunProcess.start(["finetune", str(worker)], worker)
    events = follow(process, 3)
    assert [e.step for e in events[:3]] == [0, 1, 2]
    assert events[1].metrics == {"loss": 0.5}
    assert process.is_alive
    if os.name == "posix":
        assert psutil.Process(process.pid).nice() >= 10
    process.stop()
    assert process.wait(20) == 0
    assert not process.is_alive
    assert process.last_words() == "saved and stopped"


def test_a_second_viewer_finds_it_again_and_reads_all_events(worker: Path) -> None:
    first = RunProcess.start(["finetune", str(worker)], worker)
    follow(first, 2)
    second = RunProcess.attach(worker)
    assert second is not None
    assert second.pid == first.pid
    assert second.is_alive
    assert next(iter(follow(second, 1))).step == 0
    with pytest.raises(InputError, match="is at work there"):
        RunProcess.start(["finetune", str(worker)], worker)
    second.stop()
    first.wait(20)
    assert not second.is_alive


def test_kill(worker: Path) -> None:
    process = RunProcess.start([str(worker)], worker)
    follow(process, 1)
    process.kill()
    assert process.wait(20) not in (0, None)
    process.kill()  # of a dead process: nothing happens


def test_a_recycled_pid_is_not_taken_for_the_run(tmp_path: Path) -> None:
    (tmp_path / PROCESS_FILE).write_text(json.dumps({"pid": os.getpid(), "started": 12345.0}))
    process = RunProcess.attach(tmp_path)
    assert process is not None
    assert not process.is_alive


def test_attach_without_a_run(tmp_path: Path) -> None:
    assert RunProcess.attach(tmp_path) is None
    (tmp_path / PROCESS_FILE).write_text("{broken")
    assert RunProcess.attach(tmp_path) is None


def test_events_leave_the_incomplete_line_for_later(tmp_path: Path) -> None:
    process = RunProcess(tmp_path, 1, 0.0)
    assert process.events() == []
    path = tmp_path / EVENTS_FILE
    path.write_text('{"step": 1, "total": null, "phase": "a"}\nnot json\n{"step": 2, ')
    assert process.events() == [Progress(1, None, "a")]
    with path.open("a") as file:
        file.write('"total": 4, "phase": "a", "metrics": {"dice": 0.5}, "message": "m"}\n')
    assert process.events() == [Progress(2, 4, "a", {"dice": 0.5}, "m")]
    assert process.events() == []


def test_a_stop_file_of_the_last_run_is_removed(worker: Path) -> None:
    worker.mkdir()
    (worker / STOP_FILE).touch()
    process = RunProcess.start([str(worker)], worker)
    assert len(follow(process, 2)) >= 2
    process.stop()
    process.wait(20)
    assert module.LOG_FILE == "process.log"
