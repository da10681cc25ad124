"""Headers that ITK reads without complaint."""

from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from medssl.errors import InputError
from medssl.io import read_volume
from medssl.io.nifti import check_nifti

SHAPE = (5, 6, 7)


def save(path, nifti=nib.Nifti1Image, affine=None):
    values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    nib.save(nifti(values, np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine), path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_fields_agree_with_nibabel(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}")

    header = check_nifti(path)

    assert header.shape == SHAPE
    assert header.spacing == (2.0, 3.0, 4.0)
    assert header.bits == 16
    assert header.offset == nib.load(path).dataobj.offset
    assert header.has_orientation


def test_big_endian(tmp_path):
    values = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    image = nib.Nifti1Image(values, np.eye(4), nib.Nifti1Header(endianness=">"))
    nib.save(image, tmp_path / "big.nii")
    assert check_nifti(tmp_path / "big.nii").shape == (2, 3, 4)


@pytest.mark.parametrize("missing", [1, 200])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_missing_byte_is_noticed(tmp_path, suffix, missing):
    path = save(tmp_path / f"a{suffix}")
    data = gzip.decompress(path.read_bytes()) if suffix == ".nii.gz" else path.read_bytes()
    data = data[:-missing]
    path.write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
    with pytest.raises(InputError, match="truncated"):
        check_nifti(path)


def test_bytes_after_the_voxels_do_no_harm(tmp_path):
    path = save(tmp_path / "a.nii.gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"more"))
    assert check_nifti(path).shape == SHAPE


def test_several_gzip_members_are_one_file(tmp_path):
    path = save(tmp_path / "a.nii.gz")
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]))
    assert check_nifti(path).shape == SHAPE


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_spacing_that_is_no_length_is_refused(tmp_path, value):
    path = save(tmp_path / "a.nii")
    data = bytearray(path.read_bytes())
    data[88:92] = struct.pack("<f", value)
    path.write_bytes(data)
    with pytest.raises(InputError, match="spacing along z is no length"):
        check_nifti(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_two_spacings_that_contradict_each_other_are_said(tmp_path, suffix):
    turned = np.array([[0, -3, 0, 5], [2, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1.0]])
    path = save(tmp_path / f"a{suffix}", affine=turned)
    assert check_nifti(path).matrix_spacing == (2.0, 3.0, 4.0)
    assert not any("contradicts" in note for note in read_volume(path).notes)
    image = nib.load(path)
    image = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    image.header["pixdim"][1:4] = 1.0
    nib.save(image, path)
    volume = read_volume(path)
    assert volume.geometry.spacing == (1.0, 1.0, 1.0)
    (note,) = [note for note in volume.notes if "contradicts" in note]
    assert "1 x 1 x 1 mm (pixdim) or of 2 x 3 x 4 mm (sform)" in note


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("place", [256, 268])  # rotation and offset of the qform
def test_a_place_that_is_no_number_is_said_where_the_qform_decides(tmp_path, place, value):
    path = save(tmp_path / "a.nii")
    data = bytearray(path.read_bytes())
    data[place : place + 4] = struct.pack("<f", value)
    for decides, codes in ((True, (1, 0)), (False, (1, 2))):
        data[252:256] = struct.pack("<2h", *codes)
        path.write_bytes(data)
        assert any("does not say where the scan lies" in note for note in check_nifti(path).notes) == decides
        assert np.isfinite(read_volume(path).geometry.origin).all()


@pytest.mark.parametrize("place", [0, 40, 344])
def test_a_broken_header_is_refused(tmp_path, place):
    path = save(tmp_path / "a.nii")
    data = bytearray(path.read_bytes())
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(InputError, match="not a NIfTI file"):
        check_nifti(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_2_is_called_by_its_name(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", nib.Nifti2Image)
    with pytest.raises(InputError, match="is NIfTI-2, which is not read: convert it to NIfTI-1"):
        read_volume(path)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
@pytest.mark.parametrize("bits", [0, -16, 12])
def test_bits_that_do_not_fit_the_data_type_are_refused(tmp_path, dtype, bits):
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, dtype), np.eye(4)), path)
    patch(path, 72, struct.pack("<h", bits))
    with pytest.raises(InputError, match=rf"a\.nii: the header is damaged: {bits} bits per voxel do not fit"):
        read_volume(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_place_of_the_voxels_that_is_no_number_is_refused(tmp_path, value):
    path = save(tmp_path / "a.nii")
    patch(path, 108, struct.pack("<f", value))
    with pytest.raises(InputError, match=r"a\.nii: the header is damaged: .*vox_offset (nan|inf)"):
        read_volume(path)


def patch(path, place, data):
    content = bytearray(path.read_bytes())
    content[place : place + len(data)] = data
    path.write_bytes(content)
