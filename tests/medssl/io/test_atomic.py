"""Files that are complete or absent."""

from __future__ import annotations

import pytest

from medssl.errors import InputError
from medssl.io.atomic import replacing


def test_a_new_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_companions_move_along(tmp_path):
    with replacing(tmp_path / "a.mhd") as temporary:
        temporary.write_text("header")
        temporary.with_suffix(".raw").write_text("data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mhd", "a.raw"]


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "file").write_text("")

    def write():
        with replacing(tmp_path / "file" / "a.txt") as temporary:
            temporary.write_text("whole")

    with pytest.raises(InputError, match=r"a\.txt: cannot be written"):
        write()
