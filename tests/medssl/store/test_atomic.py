from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from medssl.store.atomic import atomic_file, naming, save_array, write_atomically

FULL = Path("/dev/full")  # takes nothing, as a disk without space


@pytest.mark.parametrize(
    "array", [np.arange(24).reshape(2, 3, 4), np.zeros((0, 3), np.float16), np.float32(7)]
)
def test_an_array_is_read_back_as_it_was(array, tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.npy") as file:
        save_array(file, array)
    found = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r") if array.size else found
    np.testing.assert_array_equal(mapped, array)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_says_so() -> None:
    with pytest.raises(OSError, match="No space left") as caught, FULL.open("wb") as file:
        save_array(file, np.zeros(100_000))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_has_the_name_of_the_file() -> None:
    with pytest.raises(OSError, match="No space left") as caught, naming(FULL), FULL.open("wb") as file:
        file.write(b"x" * 100_000)
    assert caught.value.filename == str(FULL)


def test_other_errors_keep_what_they_say(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="b") as caught, naming(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "b")
    assert caught.value.filename == "b"
    with pytest.raises(OSError, match="broken") as caught, naming(tmp_path):
        raise OSError(errno.EIO, "broken")
    assert caught.value.filename is None


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "old")

    def write() -> None:
        with atomic_file(tmp_path / "a.txt") as file:
            file.write(b"ne")
            raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        write()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
