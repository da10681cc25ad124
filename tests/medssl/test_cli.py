from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import Field

from medssl import cli
from medssl.config.command import CommandConfig
from medssl.errors import InputError
from medssl.io import write_volume
from medssl.jobs.progress import Progress
from medssl.volume import Geometry, Volume


class ExampleConfig(CommandConfig):
    size: int = Field(1, ge=1, description="a size")


@dataclass(frozen=True)
class ExampleResult:
    size: int
    stopped: str = ""
    run: str = "folder"

    def to_json(self) -> dict[str, object]:
        return {"size": self.size}

    def to_text(self) -> str:
        return f"size is {self.size}"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    """A command called "example" whose work is the function given."""

    def install(work) -> None:
        def run(config, workspace=None):
            yield Progress(1, 1, "working")
            return work(config)

        module = SimpleNamespace(ExampleConfig=ExampleConfig, run=run)
        monkeypatch.setitem(sys.modules, "medssl_example", module)
        entry = cli.Command("medssl_example:ExampleConfig", "medssl_example:run", "an example")
        monkeypatch.setitem(cli.COMMANDS, "example", entry)

    return install


def test_text_and_json_go_to_stdout_and_progress_to_stderr(example, capsys) -> None:
    example(lambda config: ExampleResult(config.size))
    assert cli.main(["example", "--size", "4"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "size is 4\n"
    assert captured.err == "working  1/1\n"
    assert cli.main(["example", "--size", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"size": 4}


def raiser(error: BaseException):
    def work(config):
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("a.nii: cut off; copy it again"), "a.nii: cut off; copy it again"),
        (OSError(errno.ENOSPC, "No space left on device", "b.bin"), "b.bin: the disk is full"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "c.nii"), "c.nii: No such file"),
        (
            OSError(errno.EROFS, "Read-only file system", "d.nii"),
            "d.nii: Read-only file system; choose a place that can be written",
        ),
        (FileExistsError(errno.EEXIST, "File exists", "e"), "e: File exists; it is in the way"),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "f/g"),
            "f/g: Not a directory; a file is where",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "hhh"),
            "hhh: File name too long; choose a shorter",
        ),
        (OSError(errno.EIO, "Input/output error", b"i.nii"), "i.nii: Input/output error"),
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate\n20 GiB"), "out of memory"),
    ],
)
def test_what_a_user_can_mend_is_one_line(example, capsys, error: BaseException, words: str) -> None:
    example(raiser(error))
    assert cli.main(["example"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"error: {words}")
    assert lines[:-1] == ["working  1/1"]


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), OSError(errno.EINVAL, "Invalid argument")])
def test_a_defect_keeps_its_traceback(example, error: Exception) -> None:
    example(raiser(error))
    with pytest.raises(type(error), match=str(error.args[-1])):
        cli.main(["example"])


@pytest.mark.parametrize("command", ["prototypes", "embed", "search", "prepare", "pretrain", "finetune"])
@pytest.mark.parametrize("place", ["file/below", "n" * 300, "n" * 300 + "/below"])
def test_an_impossible_place_for_the_results_is_one_line(
    command: str, place: str, tmp_path: Path, tiny_weights: dict[int, Path], capsys
) -> None:
    """Each command begins its work for real, on a scan that it can read."""
    rng = np.random.default_rng(0)
    array = np.kron(rng.integers(0, 200, (1, 6, 6)), np.ones((1, 8, 8))).astype(np.uint8)
    write_volume(Volume(array, Geometry.from_arrays((48, 48))), tmp_path / "scan.nii.gz")
    (tmp_path / "file").touch()
    scan, weights = str(tmp_path / "scan.nii.gz"), str(tiny_weights[2])
    given = {
        "prototypes": ["--input", scan, "--encoder", weights, "--k", "3"],
        "embed": ["--data", scan, "--encoder", weights],
        "search": ["--index", str(tmp_path / "index"), "--input", scan, "--at", "20,20"],
        "prepare": ["--data", scan],
        "pretrain": ["swav", "--data", scan, "--dims", "2", "--encoder", "tiny"],
        "finetune": ["segmentation", "--data", scan, "--init", weights],
    }
    if command == "search":
        index = ["--out", str(tmp_path / "index"), "--device", "cpu"]
        assert cli.main(["embed", *given["embed"], *index]) == 0
    suffix = {"prototypes": ".nii.gz", "search": ".json"}.get(command, "")
    out = str(tmp_path / place) + suffix
    assert cli.main([command, *given[command], "--out", out, "--device", "cpu"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith((f"error: {tmp_path}", f"error: --out {tmp_path}"))
    reasons = (
        ("File exists", "Not a directory", "is a file, not a folder")
        if place.startswith("file")
        else ("File name too long",)
    )
    assert any(reason in last for reason in reasons), last


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "error: nothing: no such command"),
        (["example", "--size", "0"], "error: --size: Input should be greater than or equal to 1, given '0'"),
        (["example", "--colour", "red"], "error: unrecognized arguments"),
        (["example", "--device", "gpu"], "error: --device: "),
    ],
)
def test_bad_arguments_are_one_line(example, capsys, arguments: list[str], words: str) -> None:
    example(lambda config: None)
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(words)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_interrupts_end_with_130_and_say_how_to_go_on(example, capsys) -> None:
    example(raiser(KeyboardInterrupt()))
    assert cli.main(["example"]) == 130
    assert "run medssl example again" in capsys.readouterr().err
    example(lambda config: ExampleResult(1, stopped="signal"))
    assert cli.main(["example"]) == 130
    assert "medssl example --resume folder" in capsys.readouterr().err


def test_sigterm_lets_the_command_clean_up(example, capsys) -> None:
    before = signal.getsignal(signal.SIGTERM)
    example(lambda config: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5))
    assert cli.main(["example"]) == 130
    assert signal.getsignal(signal.SIGTERM) is before


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from medssl.cli import main; main(['--help']);"
        "print([m for m in ('torch', 'monai', 'pydantic', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert all(name in done.stdout for name in cli.COMMANDS)
    assert time.perf_counter() - begun < 5  # the 1 s target is a benchmark; this machine may be busy


@pytest.mark.parametrize("is_begun", [False, True])
def test_after_an_interruption_the_way_on_can_be_typed(tmp_path, monkeypatch, capsys, is_begun) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupt)
    out = tmp_path / "my run"
    if is_begun:
        out.mkdir()
        (out / "config.yaml").touch()
    assert cli.main(["finetune", "segmentation", "--out", str(out), "--steps", "9"]) == cli.INTERRUPTED
    way = (
        f"continue with: medssl finetune --resume '{out}'"
        if is_begun
        else (f"run medssl finetune segmentation --out '{out}' --steps 9 again to go on or start over")
    )
    assert capsys.readouterr().err == f"interrupted; {way}\n"
