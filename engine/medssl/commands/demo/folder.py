"""The project of the demo: that of an earlier demo makes way, what a person did in it stays."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from medssl.commands.demo.strokes import AUTHOR
from medssl.errors import InputError
from medssl.store.edits import Change, Edit
from medssl.store.journal import Journal
from medssl.store.project import Project

MARKER = "demo.json"
RUN = "demo"
"""Name of the run that the demo trains."""


def fresh_project(out: Path) -> tuple[Project, str]:
    """A new project in the folder, and a note where an earlier one was kept.

    The project of an earlier demo is deleted, or renamed where it holds work of someone else.

    Args:
        out: folder of the results.

    Raises:
        InputError: there is a project that no demo made.
    """
    folder, note = out / "project", ""
    if (folder / MARKER).is_file():
        if holds_work(folder):
            aside = folder.with_name(f"project-{time.strftime('%Y%m%d-%H%M%S')}")
            folder.rename(aside)
            note = f"the project of the earlier demo holds work that is not the demo's: kept as {aside}"
        else:
            shutil.rmtree(folder)
    elif folder.exists():
        raise InputError(f"{folder}: is not of a demo; choose another --out")
    project = Project.create(folder)
    (folder / MARKER).write_text("{}\n", encoding="utf-8")
    return project, note


def holds_work(folder: Path) -> bool:
    """Whether a person painted, placed, undid or trained anything in a project of the demo.

    What cannot be read is taken for work.
    """
    try:
        project = Project.open(folder)
        if any(run.name != RUN for run in project.runs_folder.glob("*")):
            return True
        for entry in project.volumes:
            journal = Journal(project.labels_folder(entry.id), entry.shape)
            if journal.notes or journal.can_redo or any(_author(c) != AUTHOR for c in journal.history()):
                return True
    except InputError:
        return True
    return False


def _author(change: Change) -> str:
    if isinstance(change, Edit):
        return change.author
    entry = change.after or change.before
    return "" if entry is None else entry.author
