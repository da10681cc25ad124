"""One long-lived thread per device: short work in the order that people want it."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps

logger = logging.getLogger(__name__)


class JobState(Enum):
    """Where a job stands; the last four are final."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (JobState.WAITING, JobState.RUNNING)


@dataclass(frozen=True)
class JobEvents:
    """What a job calls, always on the device thread (`superseded` and early cancels: on the caller's).

    Args:
        progress: called with every `Progress`.
        done: called with the result of a job that ran to its end and was not cancelled meanwhile.
        failed: called with the error.
        cancelled: called when the job was cancelled or superseded.
    """

    progress: Callable[[Progress], None] = lambda _: None
    done: Callable[[Any], None] = lambda _: None
    failed: Callable[[Exception], None] = lambda _: None
    cancelled: Callable[[], None] = lambda: None


@dataclass(eq=False)
class Job:
    """One numbered request.

    Args:
        number: grows with every request of a thread; a larger number is the newer wish.
        topic: requests of one topic replace one another ("search", "probe"); empty never does.
        steps: the work.
        events: whom to tell.
    """

    number: int
    topic: str
    steps: Steps[Any]
    events: JobEvents
    state: JobState = JobState.WAITING
    error: Exception | None = None
    _cancel: threading.Event = field(default_factory=threading.Event, repr=False)
    _final: threading.Event = field(default_factory=threading.Event, repr=False)

    def cancel(self) -> None:
        """Ask for the end at the next yield; a result that comes anyway is dropped."""
        self._cancel.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether someone asked for the end."""
        return self._cancel.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the job is over; False when ``timeout`` seconds passed first."""
        return self._final.wait(timeout)

    def finish(self, state: JobState) -> None:
        """Set the last state and wake those who wait; for the thread that owns the job."""
        self.state = state
        self._final.set()


class DeviceThread:
    """Runs generators one after the other on one thread that never ends between them.

    A new thread per click would lose what CUDA libraries keep per thread (plans, workspaces), which
    costs a factor of ten per request. Waiting jobs of the same topic give way to the newest one, so
    clicks never pile up.

    Args:
        name: name of the thread, the device it serves.
        warm: called once on the thread before the first job (imports, plans).
    """

    def __init__(self, name: str = "cpu", warm: Callable[[], None] | None = None) -> None:
        self.name = name
        self._warm = warm
        self._numbers = itertools.count(1)
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._change = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, steps: Steps[Any], events: JobEvents | None = None, topic: str = "") -> Job:
        """Queue work; the newest request of a topic supersedes those that have not started.

        Args:
            steps: generator of a command.
            events: callbacks, called on the device thread.
            topic: name of the wish, empty for work that is never replaced.

        Raises:
            RuntimeError: the thread was closed.
        """
        with self._change:
            if self._closed:
                raise RuntimeError(f"the device thread {self.name} is closed")
            job = Job(next(self._numbers), topic, steps, events or JobEvents())
            stale = [old for old in self._waiting if topic and old.topic == topic]
            for old in stale:
                self._waiting.remove(old)
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"medssl-{self.name}", daemon=True)
                self._thread.start()
            self._change.notify()
        for old in stale:
            _end(old, JobState.SUPERSEDED)
        return job

    def cancel(self, topic: str | None = None) -> None:
        """Cancel the waiting and running jobs of a topic, or all of them."""
        with self._change:
            dropped = [job for job in self._waiting if topic is None or job.topic == topic]
            for job in dropped:
                self._waiting.remove(job)
            if self._running is not None and (topic is None or self._running.topic == topic):
                self._running.cancel()
        for job in dropped:
            _end(job, JobState.CANCELLED)

    def close(self, timeout: float | None = 5.0) -> None:
        """Cancel everything and let the thread end."""
        with self._change:
            self._closed = True
            self._change.notify()
        self.cancel()
        if self._thread is not None:
            self._thread.join(timeout)

    @property
    def is_busy(self) -> bool:
        """Whether a job runs or waits."""
        with self._change:
            return self._running is not None or bool(self._waiting)

    def _run(self) -> None:
        if self._warm is not None:
            try:
                self._warm()
            except Exception:  # the first job will meet the same fault and show it to its owner
                logger.exception("warming %s failed", self.name)
        while True:
            with self._change:
                while not self._waiting and not self._closed:
                    self._change.wait()
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                self._running = job
            job.state = JobState.RUNNING
            try:
                _drive(job)
            finally:
                with self._change:
                    self._running = None


def _drive(job: Job) -> None:
    """Run one job to its end, its cancellation or its error."""
    try:
        while not job.is_cancelled:
            job.events.progress(next(job.steps))
    except StopIteration as stop:
        if not job.is_cancelled:
            job.events.done(stop.value)
            job.finish(JobState.DONE)
            return
    except Exception as error:  # the thread outlives any command; the error is logged and shown
        if not isinstance(error, InputError):  # that one says everything in words
            logger.exception("%s failed", job.topic or "job")
        job.error = error
        job.events.failed(error)
        job.finish(JobState.FAILED)
        return
    _end(job, JobState.CANCELLED)


def _end(job: Job, state: JobState) -> None:
    """Close the generator of a job that will not be finished and tell its owner."""
    job.steps.close()
    job.events.cancelled()
    job.finish(state)
