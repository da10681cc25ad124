"""Answers come back on the GUI thread, in order, with bars that end."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps

pytest.importorskip("napari")

pytestmark = pytest.mark.gui


def count(result: Any, total: int = 3) -> Steps[Any]:
    for step in range(total):
        yield Progress(step, total, "counting")
    return result


@pytest.fixture
def workers(qapp: Any):
    from napari_medssl.workers import Workers

    made = Workers()
    yield made
    made.close()


def test_the_result_arrives_on_the_gui_thread(workers: Any, qtbot: Any) -> None:
    threads: list[int] = []

    def work() -> Steps[int]:
        yield Progress(0, 1, "working")
        return threading.get_ident()

    def done(worker: int) -> None:
        threads.extend((worker, threading.get_ident()))

    workers.run(work(), "Work", done)
    qtbot.waitUntil(lambda: len(threads) == 2, timeout=20_000)
    assert threads[0] != threading.get_ident()
    assert threads[1] == threading.get_ident()
    qtbot.waitUntil(lambda: not workers.is_busy, timeout=20_000)


def test_a_finished_answer_can_start_the_next_work(workers: Any, qtbot: Any) -> None:
    results: list[int] = []

    def first(value: int) -> None:
        results.append(value)
        workers.run(count(2), "Second", results.append)

    workers.run(count(1), "First", first)
    qtbot.waitUntil(lambda: results == [1, 2], timeout=20_000)
    qtbot.waitUntil(lambda: not workers.is_busy, timeout=20_000)


def test_cancel_drops_the_result_and_ends_the_bar(workers: Any, qtbot: Any) -> None:
    release, results = threading.Event(), []

    def work() -> Steps[int]:
        yield Progress(0, 2, "waiting")
        release.wait(20)
        yield Progress(1, 2, "waiting")
        return 1

    texts: list[str] = []
    stopped: list[str] = []
    workers.idle.connect(texts.append)
    workers.run(work(), "Work", results.append, stopped=lambda: stopped.append("work"))
    workers.cancel()
    release.set()
    qtbot.waitUntil(lambda: not workers.is_busy, timeout=20_000)
    assert results == []
    assert texts == ["Work: cancelled."]
    assert stopped == ["work"]


def test_a_newer_wish_of_a_topic_is_no_cancellation(workers: Any, qtbot: Any) -> None:
    release, results, stopped = threading.Event(), [], []

    def work(number: int) -> Steps[int]:
        yield Progress(0, 1, "waiting")
        release.wait(20)
        return number

    for number in range(3):  # the first one runs, the second one gives way to the third
        workers.run(work(number), "Work", results.append, "topic", stopped=lambda: stopped.append(1))
        if number == 0:
            qtbot.wait(200)
    release.set()
    qtbot.waitUntil(lambda: not workers.is_busy, timeout=20_000)
    assert results == [0, 2]
    assert stopped == []


@pytest.mark.parametrize("is_synchronous", [False, True])
def test_errors_are_shown_and_handed_on(is_synchronous: bool, qtbot: Any, monkeypatch: Any) -> None:
    from napari.utils import notifications

    from napari_medssl.workers import Workers

    shown: list[str] = []
    monkeypatch.setattr(notifications, "show_error", shown.append)
    workers = Workers(is_synchronous=is_synchronous)

    def work() -> Steps[int]:
        yield Progress(0, 1, "reading")
        raise InputError("scan.nii: no such file; check the path")

    failed: list[Exception] = []
    workers.run(work(), "Opening", lambda _: None, failed=failed.append)
    qtbot.waitUntil(lambda: bool(failed), timeout=20_000)
    assert shown == ["scan.nii: no such file; check the path"]
    workers.close()


def test_synchronous_runs_inside_the_call(qapp: Any) -> None:
    from napari_medssl.workers import Workers

    workers, results, told = Workers(is_synchronous=True), [], []
    workers.progressed.connect(lambda text, step, total: told.append((text, step, total)))
    workers.run(count(5), "Count", results.append)
    assert results == [5]
    assert told == [("Count: counting", 0, 3), ("Count: counting", 1, 3), ("Count: counting", 2, 3)]
    workers.close()


def test_every_calls_until_stopped(workers: Any, qtbot: Any) -> None:
    calls: list[int] = []
    stop = workers.every(0.01, lambda: calls.append(1))
    qtbot.waitUntil(lambda: len(calls) >= 2, timeout=20_000)
    stop()
    seen = len(calls)
    qtbot.wait(50)
    assert len(calls) == seen


def test_the_end_has_the_last_word(workers: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """napari's bar handles waiting events while it moves: the end of a job among them."""
    said: list[str] = []
    workers.progressed.connect(lambda text, step, total: said.append("busy"))
    workers.idle.connect(lambda text: said.append("idle"))
    workers.run(count(0), "Work", lambda _: None)
    (token,) = workers._bars
    bar = workers._bars[token]
    monkeypatch.setattr(type(bar), "update", lambda *_: workers._end(token, "Work: done."))
    workers._show_progress(token, "Work", Progress(1, 3, "counting"))
    assert said[-1] == "idle"
    qtbot.waitUntil(lambda: not workers.is_busy, timeout=20_000)
