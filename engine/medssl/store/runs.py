"""The run folder: what was asked, where it ran, what happened, and the checkpoints.

config.yaml        resolved settings, defaults included
environment.json   versions, git hash, device, seed
events.jsonl       one line per logged progress, with the time
checkpoints/       step-00001000.pt, complete or absent
exported/          what other commands use: model.safetensors
stop               made by whoever wants the run to end after the current step
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import yaml

from medssl.config.run import RunConfig
from medssl.errors import InputError, is_out_of_memory
from medssl.jobs.progress import Progress
from medssl.store.atomic import naming, write_atomically

_STOP = "stop"  # as in jobs.process, which needs psutil: a bare GPU machine has none
PACKAGES = ("napari-medssl", "torch", "monai", "lightning-fabric", "numpy")


class Run:
    """One training run on disk.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._is_made_here = self._is_begun = False
        self._is_folder_made_here = False

    @classmethod
    def create(cls, folder: Path, config: RunConfig, **environment: Any) -> Self:
        """Start a run folder: settings and environment are on disk before step 0.

        Args:
            folder: new or empty folder.
            config: resolved settings.
            **environment: further facts (device, seed).

        Raises:
            InputError: there is a run already, or the folder holds something else.
        """
        if (folder / "config.yaml").exists():
            raise InputError(
                f"{folder}: holds a run already; continue it with --resume {folder}, or choose another"
            )
        run = cls(folder)
        run._is_made_here, run._is_folder_made_here = True, not folder.exists()
        if not run._is_folder_made_here and (not folder.is_dir() or run._content()):
            raise InputError(f"{folder}: is not a run folder and not empty; choose another folder")
        try:
            (folder / "checkpoints").mkdir(parents=True)
            config.to_yaml(folder / "config.yaml")
            run.note_environment(**environment)
        except OSError:
            run._take_back()
            raise
        return run

    @classmethod
    def open(cls, folder: Path) -> Self:
        """An existing run.

        Raises:
            InputError: not a run folder.
        """
        if not (folder / "config.yaml").is_file():
            raise InputError(
                f"{folder}: is not a run folder (no config.yaml); give the --out of an earlier run"
            )
        (folder / "checkpoints").mkdir(exist_ok=True)
        return cls(folder)

    @contextmanager
    def until_begun(self) -> Iterator[None]:
        """Take back what `create` made where the work inside is refused before its first step.

        The corrected command would find a run there that cannot go on, for its settings are wrong. A run
        that was interrupted, met a full disk or was only opened stays: it can be resumed.
        """
        try:
            yield
        except (InputError, MemoryError, RuntimeError) as error:
            is_refused = isinstance(error, InputError) or is_out_of_memory(error)
            is_begun = self._is_begun or self.events() or self.checkpoints()
            if is_refused and self._is_made_here and not is_begun:
                self._take_back()
            raise

    def begin(self) -> None:
        """Say that the first step is under way: from now on the folder is not taken back."""
        self._is_begun = True

    def restate(self, training: Mapping[str, Any]) -> None:
        """Keep changed settings of the training loop, so that the next `--resume` has them too."""
        path = self.folder / "config.yaml"
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        if stored.get("training") != training:
            stored["training"] = dict(training)
            write_atomically(path, yaml.safe_dump(stored, sort_keys=False))

    def _take_back(self) -> None:
        for path in self._content():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)  # Windows keeps mapped files
            else:
                path.unlink(missing_ok=True)
        if self._is_folder_made_here:
            with suppress(OSError):  # not empty, or never made
                self.folder.rmdir()

    def _content(self) -> list[Path]:
        """What lies in the folder, but for the files of the process that a viewer started, or stops."""
        if not self.folder.is_dir():
            return []
        return [
            path
            for path in self.folder.iterdir()
            if not path.name.startswith("process.") and path.name != _STOP
        ]

    def note_environment(self, **facts: Any) -> None:
        """Write environment.json: versions, git hash and ``facts``."""
        values = {**environment(), **facts}
        write_atomically(self.folder / "environment.json", json.dumps(values, indent=1) + "\n")

    def log(self, progress: Progress) -> None:
        """Append one event."""
        line = {
            "time": round(time.time(), 3),
            "step": progress.step,
            "total": progress.total,
            "phase": progress.phase,
            "metrics": dict(progress.metrics),
            "message": progress.message,
        }
        path = self.folder / "events.jsonl"
        with naming(path), path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def events(self) -> list[Mapping[str, Any]]:
        """All events so far, oldest first; a torn last line is left out."""
        path = self.folder / "events.jsonl"
        if not path.exists():
            return []
        text = path.read_bytes()
        return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]

    @property
    def stop_requested(self) -> bool:
        """Whether someone asked the run to end after the current step."""
        return (self.folder / _STOP).exists()

    def clear_stop(self) -> None:
        """Forget an old request, before going on."""
        (self.folder / _STOP).unlink(missing_ok=True)

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / "checkpoints" / f"step-{step:08d}.pt"

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-*.pt"))

    def last_good(self) -> str:
        """In words, which checkpoint a failed training can go on from."""
        kept = self.checkpoints()
        return f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was written yet"

    def prune(self, keep: int) -> None:
        """Remove all but the newest ``keep`` checkpoints."""
        for path in self.checkpoints()[:-keep]:
            path.unlink(missing_ok=True)

    @property
    def exported(self) -> Path:
        """Weights for the other commands."""
        return self.folder / "exported" / "model.safetensors"


def environment() -> dict[str, Any]:
    """Versions and machine, without importing anything heavy."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": versions,
        "git": _git_hash(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _git_hash() -> str:
    """Commit of the source tree, with "+" where files differ from it; empty outside a repository."""
    here = Path(__file__).parent
    try:
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)  # not someone else's repository
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
