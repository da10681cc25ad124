"""Every command that reads one scan takes a series and a frame, and says what was chosen and repaired."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from medssl import cli
from medssl.io import read_volume, write_volume
from medssl.volume import Geometry, Volume

SHAPE = (24, 32, 28)
COMMANDS = ("info", "prototypes", "probe", "search", "predict", "export")


def blobs(seed: int) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 400, (6, 8, 7)), np.ones((4, 4, 4))).astype(np.int16)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A 4D file whose two frames differ."""
    parts = [sitk.GetImageFromArray(blobs(seed)) for seed in range(2)]
    sitk.WriteImage(sitk.JoinSeries(parts), str(tmp_path / "time.nii.gz"))
    return tmp_path / "time.nii.gz"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder of two DICOM series, the second one slice shorter, with a slice missing in it."""
    folder = tmp_path / "study"
    folder.mkdir()
    for number in (1, 2):
        for z, pixels in enumerate(blobs(number - 1)[: len(blobs(0)) + 1 - number]):
            if (number, z) == (2, 9):
                continue
            image = sitk.GetImageFromArray(pixels)
            for key, value in {
                "0008|0060": "MR",
                "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
                "0020|000d": "1.2.3",
                "0020|000e": f"1.2.3.{number}",
                "0020|0013": str(z),
                "0020|0032": f"0\\0\\{z}",
                "0020|0037": "1\\0\\0\\0\\1\\0",
                "0028|0030": "1\\1",
            }.items():
                image.SetMetaData(key, value)
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.SetFileName(str(folder / f"{number}-{z:02d}.dcm"))
            writer.Execute(image)
    return folder


@pytest.fixture
def run(
    tmp_path: Path, tiny_weights: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[dict[str, Any], str]]:
    """Run a command on a scan; its result and what it said."""

    def start(command: str, scan: Path, *choice: str) -> tuple[dict[str, Any], str]:
        weights, out = str(tiny_weights[3]), str(tmp_path / "out.nii.gz")
        chosen = read_volume(scan, *_as_arguments(choice))
        labels = np.zeros(chosen.geometry.shape, np.uint8)
        labels[4:8, 4:8, 4:8], labels[12:16, 12:16, 12:16] = 1, 2
        labelled = tmp_path / "labels.nii.gz"
        write_volume(chosen.with_array(labels), labelled)
        line = {
            "info": f"info {scan}",
            "prototypes": f"prototypes --input {scan} --encoder {weights} --out {out} --k 3",
            "probe": f"probe --input {scan} --encoder {weights} --out {out} --labels {labelled}",
            "search": f"search --input {scan} --index {tmp_path}/index --at 8,8,8",
            "predict": f"predict --input {scan} --model phantom-lesions --out {tmp_path}/boxes.json",
            "export": f"export --input {scan} --out {out}",
        }[command]
        if command == "search":
            write_volume(Volume(blobs(5)[None], Geometry.from_arrays(SHAPE), "MR"), tmp_path / "other.nii.gz")
            embed = ["embed", "--data", str(tmp_path / "other.nii.gz"), "--out", str(tmp_path / "index")]
            assert cli.main([*embed, "--encoder", weights, "--device", "cpu"]) == 0
        capsys.readouterr()
        assert cli.main([*line.split(), *choice, "--json", "--device", "cpu"]) == 0
        captured = capsys.readouterr()
        return json.loads(captured.out), captured.err

    return start


def _as_arguments(choice: tuple[str, ...]) -> tuple[str | None, int]:
    values = dict(zip(choice[::2], choice[1::2], strict=True))
    return values.get("--series"), int(values.get("--frame", 0))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("frame", [0, 1])
def test_a_frame_is_chosen_and_said(run, frames: Path, tmp_path: Path, command: str, frame: int) -> None:
    result, said = run(command, frames, *(["--frame", "1"] if frame else []))
    note = f"the file holds 2 volumes: this is frame {frame}, counted from 0"
    assert note in result["notes"]
    if command not in ("info", "export"):
        assert note in said
    if command == "export":
        np.testing.assert_array_equal(read_volume(tmp_path / "out.nii.gz").array[0], blobs(frame))
    if command == "search":
        identity = read_volume(frames, frame=frame).id
        assert result["query"]["volume"] == identity


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("series", ["", "1.2.3.2"])
def test_a_series_is_chosen_and_said(run, study: Path, tmp_path: Path, command: str, series: str) -> None:
    result, said = run(command, study, *(["--series", series] if series else []))
    words = "1 slice" if series else "2 series here: this is 1.2.3.1, the largest; choose another by its uid"
    assert any(words in note for note in result["notes"])
    if command not in ("info", "export"):
        assert words in said
    if command in ("prototypes", "probe", "export"):
        assert read_volume(tmp_path / "out.nii.gz").geometry.shape[0] == SHAPE[0] - bool(series)


def test_notes_of_a_cohort_name_their_scans(
    tmp_path: Path, tiny_weights: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scans"
    for seed in range(3):
        write_volume(Volume(blobs(seed)[None], Geometry.from_arrays(SHAPE)), folder / f"{seed}.nii.gz")
    holed = blobs(7).astype(np.float32)
    holed[3, 3, 3] = np.nan
    write_volume(Volume(holed[None], Geometry.from_arrays(SHAPE)), folder / "holes.nii.gz")
    table = tmp_path / "table.csv"
    table.write_text(
        "image,modality\nscans/0.nii.gz,MR\nscans/1.nii.gz,\nscans/2.nii.gz,\nscans/holes.nii.gz,MR\n"
    )
    words = ["embed", "--data", str(table), "--encoder", str(tiny_weights[3]), "--device", "cpu"]
    assert cli.main([*words, "--out", str(tmp_path / "a"), "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert [note["image"] for note in notes] == ["scans/1.nii.gz", "scans/2.nii.gz", "scans/holes.nii.gz"]
    assert notes[2]["note"].startswith("1 NaN or infinite voxels were set to the lowest value")
    assert cli.main([*words, "--out", str(tmp_path / "b")]) == 0
    text = capsys.readouterr().out
    assert "note: scans/1.nii.gz: modality not stated" in text
    assert "note: scans/holes.nii.gz: 1 NaN" in text
