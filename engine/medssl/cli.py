"""The command line: one subcommand per command, its options derived from the settings model.

Nothing heavy is imported here: ``medssl --help`` answers at once, and a command imports torch only when
its generator runs.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from medssl.errors import InputError, is_out_of_memory

INTERRUPTED = 130

_OF_PLACES = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors of the system that are the user's to mend even where they name no file."""

_WAYS_OUT = {
    errno.EROFS: "; choose a place that can be written",
    errno.EACCES: "; choose a place that you may write to, or read from",
    errno.EEXIST: "; it is in the way: choose another name, or move it",
    errno.ENOTDIR: "; a file is where a folder is needed: choose another place",
    errno.ENAMETOOLONG: "; choose a shorter one",
}


@dataclass(frozen=True)
class Command:
    """Where a command lives, and what it does in one line."""

    config: str
    run: str
    summary: str


COMMANDS = {
    name: Command(f"medssl.config.{name}:{name.capitalize()}Config", f"medssl.commands.{name}:run", summary)
    for name, summary in {
        "demo": "the whole road on a real scan; opens napari where there is a display",
        "info": "geometry, modality, intensity range and series of a scan",
        "prepare": "any readable scans -> normalised, chunked training cache",
        "pretrain": "pre-train an encoder on unlabelled scans",
        "finetune": "train encoder and decoder with labels",
        "predict": "labels of a scan from trained weights, in its own geometry",
        "embed": "patch features of one volume or a cohort into a search index",
        "search": "places that look like a given voxel, best first",
        "prototypes": "prototype map of a scan as a label volume",
        "probe": "few labelled voxels -> whole-volume segmentation, in seconds",
        "export": "images and masks as NIfTI, NRRD, MHA, DICOM SEG and tables",
        "evaluate": "what an encoder is worth: six protocols with intervals and plots",
        "weights": "list, show and verify registered weights",
    }.items()
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``medssl ARGUMENTS`` and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if words[0] == "--version":
        print(_version())
        return 0
    try:
        if words[0] not in COMMANDS:
            raise InputError(f"{words[0]}: no such command; choose from {', '.join(COMMANDS)}")
        return _run(words[0], words[1:])
    except KeyboardInterrupt:
        _say(f"interrupted; {_way_on(words)}")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away (head): nothing left to say to it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  lives until exit
        return 0
    except (InputError, MemoryError, OSError, RuntimeError) as error:
        line = _explain(error)
        if line is None:
            raise
        _say(f"error: {line}")
        return 2


def _run(name: str, words: list[str]) -> int:
    from pydantic import ValidationError

    from medssl.config.arguments import parse
    from medssl.config.merge import explain_option, merge
    from medssl.jobs.progress import drain
    from medssl.terminal import Reporter

    command = COMMANDS[name]
    model = _load(command.config)
    given = parse(model, f"medssl {name}", command.summary, words)
    as_json = given.pop("json", False)
    try:
        config = merge(model, given)
    except ValidationError as error:
        raise InputError(f"{explain_option(error)}; see medssl {name} --help") from error
    is_first = os.environ.get("RANK", "0") == "0"  # torchrun: one voice
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with Reporter(sys.stderr, silent=not is_first) as reporter:
            result = drain(_load(command.run)(config), reporter)
    finally:
        signal.signal(signal.SIGTERM, before)
    if is_first:
        _show(result, as_json)
    if getattr(result, "stopped", "") == "signal":
        _say(f"interrupted; continue with: medssl {name} --resume {getattr(result, 'run', 'RUN')}")
        return INTERRUPTED
    return 0


def _show(result: Any, as_json: bool) -> None:
    values = result.to_json() if hasattr(result, "to_json") else result
    if as_json:
        print(json.dumps(values, allow_nan=False))
    elif hasattr(result, "to_text"):
        print(result.to_text())
    elif isinstance(values, dict):
        print("\n".join(f"{name}: {value}" for name, value in values.items()))
    elif values is not None:
        print(values)


def _explain(error: BaseException) -> str | None:
    """One line for what a user can mend; None for a defect, which deserves its traceback."""
    text = " ".join(str(error).split())
    if isinstance(error, InputError):
        return text
    if isinstance(error, OSError):
        where = "the output" if error.filename is None else os.fsdecode(error.filename)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            way = "free some space and run the command again, with --resume where it has made a run folder"
            return f"{where}: the disk is full; {way}"
        if error.filename is None and not isinstance(error, _OF_PLACES):
            return None
        return f"{where}: {error.strerror or text}{_WAYS_OUT.get(error.errno or 0, '')}"
    if is_out_of_memory(error):
        return "out of memory; use smaller crops, batches or tiles, or a machine with more memory"
    return None


def _way_on(words: Sequence[str]) -> str:
    """What to type after an interruption: a training that has its folder already goes on from there."""
    out = words[words.index("--out") + 1] if "--out" in words[:-1] else None
    if words[0] in ("pretrain", "finetune") and out is not None and (Path(out) / "config.yaml").is_file():
        return f"continue with: medssl {words[0]} --resume {shlex.quote(out)}"
    return f"run medssl {shlex.join(words)} again to go on or start over"


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    head = "usage: medssl COMMAND [options]    (medssl COMMAND --help shows the options)"
    tail = "every command takes --seed, --device auto|cpu|cuda[:i] and --json; progress goes to stderr"
    return "\n".join([head, "", "commands:", *lines, "", tail])


def _version() -> str:
    from importlib.metadata import version

    return f"medssl {version('napari-medssl')}"


def _load(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
