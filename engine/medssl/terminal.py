"""Progress on a terminal: one line that renews itself, or plain lines now and then in a log; notices stay."""

from __future__ import annotations

import shutil
import time
from types import TracebackType
from typing import Self, TextIO

from medssl.jobs.progress import Progress

_TERMINAL_SECONDS = 0.1
_LOG_SECONDS = 10.0
_SHOWN = 3


class Reporter:
    """Called with every `Progress`; writes few of them.

    Args:
        stream: where to write, usually stderr.
        silent: write nothing (a process that is not the first).
    """

    def __init__(self, stream: TextIO, silent: bool = False) -> None:
        self._stream = stream
        self._silent = silent
        self._renews = stream.isatty()
        self._phase = ""
        self._metrics: dict[str, float] = {}
        self._begun = time.monotonic()
        self._first = 0
        self._written = 0.0
        self._pending = ""
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish_line()

    def __call__(self, progress: Progress) -> None:
        """Show one progress, if it is time."""
        if self._silent:
            return
        if progress.notice:
            self._finish_line()
            self._stream.write(f"{progress.phase}: {progress.message}\n")
            self._stream.flush()
            return
        now = time.monotonic()
        is_new = progress.phase != self._phase
        if is_new:
            self._finish_line()
            self._phase, self._metrics = progress.phase, {}
            self._begun, self._first = now, progress.step  # a resumed run begins in the middle
        self._metrics.update(progress.metrics)
        self._pending = self._line(progress, now)
        interval = _TERMINAL_SECONDS if self._renews else _LOG_SECONDS
        if is_new or now - self._written >= interval:
            self._write(now)

    def _line(self, progress: Progress, now: float) -> str:
        parts = [progress.phase]
        if progress.total:
            parts.append(f"{progress.step}/{progress.total}")
        elif progress.step:
            parts.append(str(progress.step))
        first = sorted(self._metrics, key=lambda name: name != "loss")[:_SHOWN]
        parts += [f"{name} {self._metrics[name]:.4g}" for name in first]
        elapsed = now - self._begun
        if progress.total and self._first < progress.step < progress.total and elapsed > 1:
            left = elapsed / (progress.step - self._first) * (progress.total - progress.step)
            parts.append(f"{_duration(left)} left")
        if progress.message:
            parts.append(progress.message)
        return "  ".join(parts)

    def _write(self, now: float) -> None:
        if self._renews:
            columns = shutil.get_terminal_size().columns - 1
            line = self._pending[:columns]
            self._stream.write("\r" + line.ljust(min(self._width, columns)))
            self._width = len(line)
        else:
            self._stream.write(self._pending + "\n")
        self._stream.flush()
        self._written, self._pending = now, ""

    def _finish_line(self) -> None:
        """The last word of a phase is always written."""
        if self._pending and not self._silent:
            self._write(time.monotonic())
        if self._renews and self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
