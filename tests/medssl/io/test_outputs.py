from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.io.outputs import check_dimensions, check_output
from medssl.volume import Geometry, Volume


def test_an_input_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, series = tmp_path / "scan.nii.gz", tmp_path / "series"
    scan.touch()
    series.mkdir()
    monkeypatch.chdir(tmp_path)
    check_output(tmp_path / "mask.nii.gz", scan, series)
    for out, given in ((Path("scan.nii.gz"), scan), (series / "mask.nii.gz", series)):
        with pytest.raises(InputError, match="would write over the input"):
            check_output(out, tmp_path / "other.nii", given)


def test_a_place_that_takes_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = tmp_path / "scan.nii"
    scan.touch()
    (tmp_path / "folder.nii").mkdir()
    for name, words in (
        ("folder.nii", "is a folder; give the name of a file"),
        ("scan.nii/deep/mask.nii", "scan.nii is a file, not a folder"),
    ):
        with pytest.raises(InputError, match=words):
            check_output(tmp_path / name, tmp_path / "other.nii")
    check_output(tmp_path / "new" / "mask.nii", scan)  # folders are made
    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", lambda path: False)  # a drive that is gone
        with pytest.raises(InputError, match="is not there"):
            check_output(tmp_path / "mask.nii", scan)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"may not be written to; choose another folder"):
        check_output(tmp_path / "new" / "mask.nii", scan)


@pytest.mark.parametrize("name", ["mask.xyz", "mask", "mask.jpg"])
def test_an_ending_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be written; end the name with one of"):
        check_output(tmp_path / name, tmp_path / "scan.nii")


def test_a_picture_is_refused_for_a_volume_alone(tmp_path: Path) -> None:
    volume, image = (Volume(np.zeros((1, *(4,) * n)), Geometry.from_arrays((4,) * n)) for n in (3, 2))
    with pytest.raises(InputError, match=r"--map .*a\.png: a picture holds no volume"):
        check_dimensions(tmp_path / "a.png", volume, "--map")
    check_dimensions(tmp_path / "a.nii.gz", volume)
    check_dimensions(tmp_path / "a.png", image)
