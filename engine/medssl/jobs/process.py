"""Training as another process: start it, follow its events, stop it, find it again."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from medssl.errors import InputError
from medssl.jobs.progress import Progress

logger = logging.getLogger(__name__)

PROCESS_FILE = "process.json"
EVENTS_FILE = "events.jsonl"
STOP_FILE = "stop"
LOG_FILE = "process.log"

_NICENESS = 10
_SAME_START = 1.0  # seconds; a recycled pid has another start time
_LOG_TAIL = 4096


class RunProcess:
    """A command that runs in its own process and writes into a run folder.

    The process outlives the one that started it. Its pid and start time stand in ``process.json``
    of the run folder, so that a viewer opened later finds it again; a pid that was given to another
    process meanwhile has another start time.

    Args:
        run: run folder.
        pid: process id.
        started: start time of the process, seconds since the epoch.
        child: the handle, where this process is the parent.
    """

    def __init__(
        self, run: Path, pid: int, started: float, child: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.run = run
        self.pid = pid
        self.started = started
        self._child = child
        self._read = 0

    @classmethod
    def start(cls, arguments: Sequence[str], run: Path) -> RunProcess:
        """Start ``python -m medssl ARGUMENTS`` at lower priority, its output in the run folder.

        Args:
            arguments: command line after ``medssl``.
            run: run folder; made when absent.

        Raises:
            InputError: a process is at work in this run folder already.
        """
        if (other := cls.attach(run)) is not None and other.is_alive:
            raise InputError(f"{run}: process {other.pid} is at work there; stop it or choose another folder")
        run.mkdir(parents=True, exist_ok=True)
        (run / STOP_FILE).unlink(missing_ok=True)
        command = [sys.executable, "-m", "medssl", *arguments]
        with (run / LOG_FILE).open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the viewer's terminal must not reach it
            )
        process = psutil.Process(child.pid)
        started = process.create_time()
        try:
            process.nice(_NICENESS if os.name == "posix" else psutil.BELOW_NORMAL_PRIORITY_CLASS)
        except psutil.Error:
            logger.warning("the priority of process %d cannot be lowered", child.pid)
        record = {"pid": child.pid, "started": started, "command": list(arguments)}
        _write_whole(run / PROCESS_FILE, json.dumps(record))
        return cls(run, child.pid, started, child)

    @classmethod
    def attach(cls, run: Path) -> RunProcess | None:
        """The process last started in a run folder, alive or not; None where there was none."""
        try:
            record = json.loads((run / PROCESS_FILE).read_text(encoding="utf-8"))
            return cls(run, int(record["pid"]), float(record["started"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read: %s", run / PROCESS_FILE, error)
            return None

    @property
    def is_alive(self) -> bool:
        """Whether the very same process still runs."""
        if self._child is not None:
            return self._child.poll() is None
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < _SAME_START
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    @property
    def exit_code(self) -> int | None:
        """Exit code, None while it runs or where another process was its parent."""
        return None if self._child is None else self._child.poll()

    def events(self) -> list[Progress]:
        """The events written since the last call; a line that is not complete yet is left for later."""
        try:
            with (self.run / EVENTS_FILE).open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:
            return []
        complete = text[: text.rfind(b"\n") + 1]
        self._read += len(complete)
        return [event for line in complete.splitlines() if (event := _parse(line)) is not None]

    def stop(self) -> None:
        """Ask it to finish the step, save and exit."""
        if self.run.is_dir():
            (self.run / STOP_FILE).touch()

    def kill(self) -> None:
        """End it at once; the last checkpoint stays."""
        if self.is_alive:
            psutil.Process(self.pid).terminate()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end and return the exit code (None where it is unknown).

        Raises:
            TimeoutError: it still runs after ``timeout`` seconds.
        """
        try:
            return (
                psutil.Process(self.pid).wait(timeout) if self._child is None else self._child.wait(timeout)
            )
        except psutil.NoSuchProcess:
            return None
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired) as error:
            raise TimeoutError(f"process {self.pid} still runs after {timeout} s") from error

    def last_words(self) -> str:
        """The last line of its output: after a failure, the reason."""
        try:
            text = (self.run / LOG_FILE).read_bytes()[-_LOG_TAIL:].decode(errors="replace")
        except FileNotFoundError:
            return ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def _parse(line: bytes) -> Progress | None:
    try:
        values: Mapping[str, Any] = json.loads(line)
        return Progress(
            step=int(values["step"]),
            total=None if values.get("total") is None else int(values["total"]),
            phase=str(values.get("phase", "")),
            metrics={name: float(value) for name, value in (values.get("metrics") or {}).items()},
            message=str(values.get("message") or ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("an event was skipped: %s", error)
        return None


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_suffix(path.suffix + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
