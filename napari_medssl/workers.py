"""Brings the events of jobs to the GUI thread, and shows them as napari progress and messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from qtpy.QtCore import QObject, Qt, QTimer, Signal, Slot

from medssl.errors import InputError
from medssl.jobs.device import DeviceThread, Job, JobEvents, JobState
from medssl.jobs.progress import Progress, Steps, drain

if TYPE_CHECKING:
    from napari.utils import progress as NapariProgress

T = TypeVar("T")

_BETWEEN_UPDATES = 0.05  # seconds; a bar that moves faster only costs time


class Run(Protocol):
    """How a controller hands over work; what comes back arrives on the GUI thread.

    Args:
        steps: generator of a command.
        title: what is done, in words for the user.
        done: receives the result.
        topic: requests of one topic replace one another.
        failed: called after the error was shown.
        stopped: called when the user cancelled; not when a newer request of the topic took the place.
    """

    def __call__(
        self,
        steps: Steps[T],
        title: str,
        done: Callable[[T], None],
        topic: str = "",
        *,
        failed: Callable[[Exception], None] | None = None,
        stopped: Callable[[], None] | None = None,
    ) -> None:
        """Run it."""
        ...


class Workers(QObject):
    """Runs commands on one device thread, or here and now for tests.

    1. The GUI thread submits a generator; its callbacks run on the device thread.
    2. Each callback only emits `_arrived`, whose connection is queued, with a function and a value.
    3. The GUI thread calls the function. A job that was cancelled meanwhile is skipped there, so no
       answer arrives after its cancellation.

    Args:
        is_synchronous: run every command inside the call; for tests.
        parent: Qt parent.
    """

    progressed = Signal(str, int, object)
    idle = Signal(str)
    _arrived = Signal(object, object)

    def __init__(self, is_synchronous: bool = False, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._is_synchronous = is_synchronous
        self._device = DeviceThread("device")
        self._bars: dict[object, NapariProgress] = {}
        self._timers: list[QTimer] = []
        # A method of an object that lives on the GUI thread, explicitly queued: a plain function would be
        # called on the emitting thread.
        self._arrived.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    def run(
        self,
        steps: Steps[T],
        title: str,
        done: Callable[[T], None],
        topic: str = "",
        *,
        failed: Callable[[Exception], None] | None = None,
        stopped: Callable[[], None] | None = None,
    ) -> None:
        """See `Run`."""
        if self._is_synchronous:
            self._run_here(steps, title, done, failed)
            return
        token = object()
        job: list[Job] = []
        shown = [0.0]

        def progress(value: Progress) -> None:
            now = time.monotonic()
            if now - shown[0] >= _BETWEEN_UPDATES or value.message:
                shown[0] = now
                self._arrived.emit(lambda p: self._show_progress(token, title, p), value)

        def finish(result: T) -> None:
            if job[0].is_cancelled:  # after the last step
                cancel()
                return
            self._end(token, f"{title}: done.")
            done(result)

        def cancel() -> None:
            self._end(token, f"{title}: cancelled.")
            if stopped is not None and job[0].state is not JobState.SUPERSEDED:
                stopped()

        def fail(error: Exception) -> None:
            self._end(token, _show_error(title, error))
            if failed is not None:
                failed(error)

        events = JobEvents(
            progress=progress,
            done=lambda result: self._arrived.emit(finish, result),
            failed=lambda error: self._arrived.emit(fail, error),
            cancelled=lambda: self._arrived.emit(lambda _: cancel(), None),
        )
        # First the bar: making it lets napari process events, and the answer must find it.
        self._open_bar(token, title)
        job.append(self._device.submit(steps, events, topic))

    def cancel(self) -> None:
        """End everything that runs or waits."""
        self._device.cancel()

    @property
    def is_busy(self) -> bool:
        """Whether work is running, waiting or not yet shown."""
        return bool(self._bars)

    def every(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Call a function again and again on the GUI thread; the returned function ends that."""
        timer = QTimer(self)
        timer.timeout.connect(call)
        timer.start(round(1000 * seconds))
        self._timers.append(timer)

        def stop() -> None:
            timer.stop()
            if timer in self._timers:
                self._timers.remove(timer)
                timer.deleteLater()

        return stop

    def close(self) -> None:
        """End the thread and the timers."""
        for timer in self._timers:
            timer.stop()
        self._timers.clear()
        self._device.close()
        for token in list(self._bars):
            self._close_bar(token)

    @Slot(object, object)
    def _deliver(self, function: Callable[[object], None], value: object) -> None:
        function(value)

    def _run_here(
        self,
        steps: Steps[T],
        title: str,
        done: Callable[[T], None],
        failed: Callable[[Exception], None] | None,
    ) -> None:
        try:
            result = drain(steps, lambda p: self.progressed.emit(_words(title, p), p.step, p.total))
        except InputError as error:
            self.idle.emit(_show_error(title, error))
            if failed is not None:
                failed(error)
            return
        self.idle.emit(f"{title}: done.")
        done(result)

    def _open_bar(self, token: object, title: str) -> None:
        from napari.utils import progress

        bar = progress(total=0, desc=title)
        self._bars[token] = bar
        self.progressed.emit(title, 0, None)

    def _show_progress(self, token: object, title: str, value: Progress) -> None:
        bar = self._bars.get(token)
        if bar is None:
            return
        self.progressed.emit(_words(title, value), value.step, value.total)
        # last: napari's bar handles waiting events, the end of this very job among them
        if value.total and bar.total != value.total:
            bar.total = value.total
        if value.total:
            bar.update(value.step - bar.n)

    def _end(self, token: object, text: str) -> None:
        self._close_bar(token)
        if not self._bars:
            self.idle.emit(text)

    def _close_bar(self, token: object) -> None:
        if (bar := self._bars.pop(token, None)) is not None:
            bar.close()


def _words(title: str, value: Progress) -> str:
    part = value.message or value.phase
    return f"{title}: {part}" if part and part.lower() not in title.lower() else title


def _show_error(title: str, error: Exception) -> str:
    """Tell the user in words, and give the words back."""
    from napari.utils.notifications import show_error

    text = str(error) if isinstance(error, InputError) else f"{title} failed: {error or type(error).__name__}"
    show_error(text)
    return text
