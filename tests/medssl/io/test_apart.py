"""The NIfTI file that was named is the one that is read."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.io import read_volume
from medssl.io.apart import apart


def save(path, value, shape=(5, 4, 3)):
    nib.save(nib.Nifti1Image(np.full(shape, value, np.int16), np.eye(4)), path)


@pytest.mark.parametrize("shape", [(5, 4, 3), (6, 7, 8)], ids=["same shape", "other shape"])
@pytest.mark.parametrize("links", [True, False])
def test_an_unpacked_file_beside_a_packed_one_is_not_read_in_its_place(tmp_path, monkeypatch, shape, links):
    if not links:
        monkeypatch.setattr(Path, "symlink_to", no_links)
    save(tmp_path / "x.nii.gz", 7)
    save(tmp_path / "x.nii", 9, shape)
    packed, plain = read_volume(tmp_path / "x.nii.gz"), read_volume(tmp_path / "x.nii")
    assert packed.geometry.shape == (3, 4, 5)
    assert (packed.array == 7).all()
    assert plain.geometry.shape == shape[::-1]
    assert (plain.array == 9).all()
    assert packed.id.startswith("x-")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.nii", "x.nii.gz"]


def no_links(self, target):
    raise OSError("no links here")


def test_a_frame_is_that_of_the_named_file(tmp_path):
    values = np.arange(120, dtype=np.int16).reshape(5, 4, 3, 2)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "x.nii.gz")
    save(tmp_path / "x.nii", 9)
    np.testing.assert_array_equal(read_volume(tmp_path / "x.nii.gz", frame=1).array[0].T, values[..., 1])


@pytest.mark.parametrize("name", ["x.NII.gz", "x.Nii", "X.NII.GZ", "X.NII"])
def test_the_case_of_an_ending_does_not_matter(tmp_path, name):
    save(tmp_path / "made.nii.gz" if name.lower().endswith("gz") else tmp_path / "made.nii", 7)
    next(tmp_path.iterdir()).rename(tmp_path / name)
    assert (read_volume(tmp_path / name).array == 7).all()


def test_a_file_without_rivals_is_read_where_it_is(tmp_path):
    save(tmp_path / "x.nii.gz", 7)
    save(tmp_path / "xx.nii", 9)
    with apart(tmp_path / "x.nii.gz", ".nii.gz") as place:
        assert place == tmp_path / "x.nii.gz"
