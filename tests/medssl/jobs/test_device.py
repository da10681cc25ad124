"""Laws of the device thread: one thread, in order, newest wins, cancel at the next yield."""

from __future__ import annotations

import threading

import pytest

from medssl.errors import InputError
from medssl.jobs.device import DeviceThread, Job, JobEvents, JobState
from medssl.jobs.progress import Progress, Steps

WAIT = 10.0


@pytest.fixture
def device():
    thread = DeviceThread("test")
    yield thread
    thread.close()


class Gate:
    """A command that starts, says so, and waits at a yield until it is let go."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.go = threading.Event()
        self.closed = threading.Event()

    def steps(self, result: int = 0) -> Steps[int]:
        try:
            self.started.set()
            yield Progress(0, 2, "waiting")
            assert self.go.wait(WAIT)
            yield Progress(1, 2, "waiting")
            return result
        finally:
            self.closed.set()


def count(result: int, total: int = 3) -> Steps[int]:
    for step in range(total):
        yield Progress(step, total, "counting")
    return result


def collect() -> tuple[list[object], JobEvents]:
    seen: list[object] = []
    return seen, JobEvents(
        progress=lambda p: seen.append(p.step),
        done=lambda value: seen.append(("done", value)),
        failed=lambda error: seen.append(("failed", str(error))),
        cancelled=lambda: seen.append("cancelled"),
    )


def test_progress_and_result_arrive_in_order(device: DeviceThread) -> None:
    seen, events = collect()
    job = device.submit(count(7), events)
    assert job.wait(WAIT)
    assert seen == [0, 1, 2, ("done", 7)]
    assert job.state is JobState.DONE


def test_every_job_runs_on_the_same_thread_after_one_warming() -> None:
    threads: list[int] = []
    device = DeviceThread("test", warm=lambda: threads.append(threading.get_ident()))

    def where() -> Steps[int]:
        yield Progress(0, 1, "")
        return threading.get_ident()

    jobs = [device.submit(where(), JobEvents(done=threads.append)) for _ in range(3)]
    assert all(job.wait(WAIT) for job in jobs)
    device.close()
    assert len(threads) == 4
    assert set(threads) == {threads[0]}
    assert threads[0] != threading.get_ident()


def test_numbers_grow(device: DeviceThread) -> None:
    jobs = [device.submit(count(i)) for i in range(3)]
    assert [job.number for job in jobs] == sorted({job.number for job in jobs})


def test_newest_supersedes_only_waiting_jobs_of_its_topic(device: DeviceThread) -> None:
    gate = Gate()
    running = device.submit(gate.steps(), topic="search")
    assert gate.started.wait(WAIT)
    seen, events = collect()
    old = device.submit(count(1), events, topic="search")
    other = device.submit(count(2), topic="probe")
    unnamed = [device.submit(count(3)) for _ in range(2)]
    new = device.submit(count(4), topic="search")
    assert old.state is JobState.SUPERSEDED
    assert seen == ["cancelled"]
    gate.go.set()
    assert all(job.wait(WAIT) for job in (running, other, *unnamed, new))
    assert [job.state for job in (running, other, *unnamed, new)] == [JobState.DONE] * 5


def test_cancel_closes_the_generator_at_the_next_yield_and_drops_the_result(device: DeviceThread) -> None:
    gate = Gate()
    seen, events = collect()
    job = device.submit(gate.steps(5), events)
    assert gate.started.wait(WAIT)
    job.cancel()
    gate.go.set()
    assert job.wait(WAIT)
    assert job.state is JobState.CANCELLED
    assert gate.closed.is_set()
    assert seen[-1] == "cancelled"
    assert ("done", 5) not in seen


def test_a_late_result_of_a_cancelled_job_is_dropped(device: DeviceThread) -> None:
    seen, events = collect()
    holder: list[Job] = []

    def cancels_itself() -> Steps[int]:
        yield Progress(0, 1, "")
        holder[0].cancel()
        return 1

    gate = Gate()
    device.submit(gate.steps())
    holder.append(device.submit(cancels_itself(), events))
    gate.go.set()
    assert holder[0].wait(WAIT)
    assert seen == [0, "cancelled"]


def test_an_error_is_reported_and_the_thread_lives_on(device: DeviceThread) -> None:
    def broken() -> Steps[int]:
        yield Progress(0, 1, "")
        raise ValueError("no such file")

    seen, events = collect()
    job = device.submit(broken(), events)
    assert job.wait(WAIT)
    assert seen == [0, ("failed", "no such file")]
    assert job.state is JobState.FAILED
    assert isinstance(job.error, ValueError)
    assert device.submit(count(1)).wait(WAIT)


@pytest.mark.parametrize(
    ("error", "lines"), [(InputError("x.nii: empty; copy it again"), 0), (KeyError("x"), 1)]
)
def test_only_defects_leave_a_traceback_in_the_log(
    device: DeviceThread, caplog: pytest.LogCaptureFixture, error: Exception, lines: int
) -> None:
    def broken() -> Steps[int]:
        yield Progress(0, 1, "")
        raise error

    assert device.submit(broken()).wait(WAIT)
    assert sum(record.exc_info is not None for record in caplog.records) == lines


def test_cancel_by_topic_and_close(device: DeviceThread) -> None:
    gate = Gate()
    running = device.submit(gate.steps(), topic="a")
    assert gate.started.wait(WAIT)
    waiting = device.submit(count(1), topic="b")
    kept = device.submit(count(2), topic="c")
    device.cancel("b")
    assert waiting.state is JobState.CANCELLED
    gate.go.set()
    assert kept.wait(WAIT)
    assert running.state is JobState.DONE
    device.close()
    with pytest.raises(RuntimeError, match="closed"):
        device.submit(count(3))
