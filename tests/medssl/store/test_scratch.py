from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from medssl.store import scratch
from medssl.store.scratch import scratch_folder


def test_a_scratch_folder_is_gone_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        np.save(folder / "a.npy", np.zeros(3))
    with pytest.raises(RuntimeError), scratch_folder(tmp_path):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="locks are of POSIX")
def test_what_a_killed_program_left_goes_and_what_is_in_use_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "scratch-killed"
    killed.mkdir()
    (killed / scratch._IN_USE).touch()
    old, young = tmp_path / "scratch-old", tmp_path / "scratch-young"  # without the file that is locked
    old.mkdir()
    for folder in (killed, old):
        os.utime(folder, (time.time() - 60,) * 2)
    young.mkdir()
    monkeypatch.setattr(scratch, "_YOUNG", 30.0)
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        os.utime(first, (time.time() - 60,) * 2)
        with scratch_folder(tmp_path) as third:
            names = {folder.name for folder in (first, second, third, young)}
            assert {path.name for path in tmp_path.iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == [young.name]


def test_where_disks_know_no_locks_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(file: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(scratch, "lock", refused)
    monkeypatch.setattr(scratch, "_YOUNG", 0.0)
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path):
        assert first.exists()
