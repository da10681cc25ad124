"""Where and from what figures were made: a table without it cannot be repeated."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any


def environment(device: str) -> dict[str, Any]:
    """Hardware, versions, git state and command line of this process.

    Args:
        device: the device that computed, in words.
    """
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": shlex.join([Path(sys.argv[0]).name, *map(portable, sys.argv[1:])]),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": device,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("torch", "numpy", "scikit-learn", "napari-medssl")},
        "git": git_state(Path(__file__).parent),
    }


def portable(argument: str) -> str:
    """An option without the folders of this machine: scans by ``$MEDSSL_DATA``, other absolute paths by name.

    Args:
        argument: one word of the command line; several paths may be joined by commas.
    """
    data = os.environ.get("MEDSSL_DATA", "")
    root = Path(data).resolve() if data else None

    def shown(word: str) -> str:
        path = Path(word)
        if not path.is_absolute():
            return word
        if root is not None and path.resolve().is_relative_to(root):
            return f"$MEDSSL_DATA/{path.resolve().relative_to(root)}"
        return path.name

    return ",".join(map(shown, argument.split(",")))


def git_state(folder: Path) -> str:
    """Commit of the working tree that holds ``folder``, "+" behind it where files differ; "" outside git."""
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
