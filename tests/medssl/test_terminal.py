from __future__ import annotations

import io

import pytest

from medssl.jobs.progress import Progress
from medssl.terminal import Reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_the_first_and_the_last_line_of_a_phase() -> None:
    stream = io.StringIO()
    with Reporter(stream) as reporter:
        for step in range(1, 101):
            reporter(Progress(step, 100, "training", {"error": 2.0, "loss": 1 / step} if step == 50 else {}))
        reporter(Progress(1, None, "exporting", message="weights"))
    assert stream.getvalue().splitlines() == [
        "training  1/100",
        "training  100/100  loss 0.02  error 2",
        "exporting  1  weights",
    ]


def test_a_terminal_line_renews_itself() -> None:
    stream = Terminal()
    with Reporter(stream) as reporter:
        for step in range(3):
            reporter(Progress(step, 3, "embedding", message="x" * 500))
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert text.count("\r") == 2
    assert max(map(len, text.splitlines())) < 500


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["log", "terminal"])
def test_notices_stay_whole_and_on_lines_of_their_own(stream: io.StringIO) -> None:
    notices = [f"left out {number}.nii: " + "x" * 200 for number in range(5)]
    with Reporter(stream) as reporter:
        reporter(Progress(1, 2, "preparing"))
        reporter(Progress(2, 2, "preparing", message="2.nii"))
        for text in notices:
            reporter(Progress(0, None, "preparing", message=text, notice=True))
        reporter(Progress(0, 3, "training"))
    lines = [line.rpartition("\r")[2].rstrip() for line in stream.getvalue().split("\n")]
    written = ["preparing  2/2  2.nii", *(f"preparing: {text}" for text in notices), "training  0/3", ""]
    assert lines[-len(written) :] == written


def test_the_time_left_of_a_resumed_run_counts_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.0]
    monkeypatch.setattr("medssl.terminal.time.monotonic", lambda: seconds[0])
    stream = io.StringIO()
    with Reporter(stream) as reporter:
        reporter(Progress(500, 1000, "training"))
        seconds[0] = 100.0
        reporter(Progress(600, 1000, "training"))
    assert stream.getvalue().splitlines()[-1] == "training  600/1000  6:40 left"


def test_other_processes_are_silent() -> None:
    stream = io.StringIO()
    with Reporter(stream, silent=True) as reporter:
        reporter(Progress(1, 2, "training"))
    assert stream.getvalue() == ""
