"""Damaged, uneven, tilted and foreign DICOM: a stated repair or one clear line."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.pixels import set_pixel_data
from pydicom.uid import JPEG2000Lossless, MediaStorageDirectoryStorage, generate_uid

from medssl.errors import InputError
from medssl.io import list_series, read_volume
from medssl.io.axes import lps_point

SHAPE = (8, 12, 10)


@pytest.fixture
def ramp():
    """(8, 12, 10) values that grow linearly along every axis, so that interpolation is exact."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    return (1000 + 100 * z + 8 * y + 4 * x).astype(np.uint16)


def refused(path, *words):
    with pytest.raises(InputError) as error:
        read_volume(path)
    message = str(error.value)
    assert "\n" not in message
    assert "Sprenger" not in message
    assert "4711" not in message
    for word in (str(path), *words):
        assert word in message
    return message


def test_nothing_there(tmp_path):
    refused(tmp_path / "nowhere", "no such file or folder")
    refused(tmp_path, "the folder is empty")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path, "none of its 1 files is DICOM")
    refused(tmp_path / "notes.txt", "not an image that can be read", ".nii.gz")


def test_a_file_that_only_begins_like_dicom(tmp_path, capfd):
    path = tmp_path / "fake.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    refused(path, "not a DICOM file, or truncated or damaged")
    refused(tmp_path, "none of 1 DICOM files can be read")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("part", [0.5, 0.95])
def test_a_truncated_slice(tmp_path, write_series, ramp, part):
    write_series(tmp_path, ramp)
    path = tmp_path / "IM0003"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - int(ramp[0].nbytes * part)])
    with pytest.raises(InputError, match=r"IM0003: truncated or damaged"):
        read_volume(tmp_path)


@pytest.mark.parametrize("missing", [9, 60])
def test_a_truncated_compressed_slice(tmp_path, write_series, ramp, capfd, missing):
    ramp = np.kron(ramp, np.ones((1, 8, 8), np.uint16))  # the encoder wants more pixels

    def jpeg(header, index):
        set_pixel_data(header, ramp[index], "MONOCHROME2", 16)
        header.compress(JPEG2000Lossless, generate_instance_uid=False)

    write_series(tmp_path, ramp, change=jpeg)
    path = tmp_path / "IM0003"
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(InputError, match=r"IM0003: truncated or damaged"):
        read_volume(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("481.3 RTSTRUCT", "contours (RTSTRUCT), not an image"),
        ("481.5 RTPLAN", "a treatment plan (RTPLAN)"),
        ("481.2 RTDOSE", "a dose distribution (RTDOSE)"),
        ("66.4 SEG", "a segmentation (SEG)"),
        ("88.33 SR", "a report (SR)"),
        ("104.1 OT", "a document (DOC)"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(tmp_path, write_series, ramp, kind, words):
    number, modality = kind.split()

    def become(header, _):
        header.SOPClassUID, header.Modality = f"1.2.840.10008.5.1.4.1.1.{number}", modality
        if modality not in ("SEG", "RTDOSE"):
            del header.PixelData, header.Rows, header.Columns

    write_series(tmp_path, ramp[:1], change=become)

    refused(tmp_path, words, "give the image series it belongs to")
    refused(next(tmp_path.iterdir()), words)
    [info] = list_series(tmp_path)
    assert words.split(",")[0] in info.reason


def test_an_image_beside_contours_is_read(tmp_path, write_series, ramp):
    def contours(header, _):
        header.SOPClassUID, header.Modality = "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"
        del header.PixelData, header.Rows, header.Columns

    write_series(tmp_path, ramp)
    other = write_series(tmp_path, ramp[:1], change=contours, prefix="RS")

    assert read_volume(tmp_path).geometry.shape == SHAPE
    assert [bool(info.reason) for info in list_series(tmp_path)] == [False, True]
    with pytest.raises(InputError, match=r"this series holds contours"):
        read_volume(tmp_path, series=other)


def test_a_zero_pixel_spacing(tmp_path, write_series, ramp):
    write_series(tmp_path, ramp, pixel_spacing=(1.0, 0.0))
    refused(tmp_path, "pixel spacing is not positive")


def test_a_zero_rescale_slope(tmp_path, write_series, ramp):
    write_series(tmp_path, ramp, rescale=((1, -1024), (0, -1024)))
    refused(tmp_path, "a rescale slope is 0")


@pytest.mark.parametrize(("modality", "is_said"), [("CT", True), ("MR", False)])
def test_stored_values_that_pass_for_hounsfield_units_are_said(
    tmp_path, write_series, ramp, modality, is_said
):
    write_series(tmp_path / "without", ramp, modality=modality, rescale=None)
    write_series(tmp_path / "with", ramp, modality=modality)
    said = [
        any("taken as Hounsfield" in note for note in read_volume(tmp_path / name).notes)
        for name in ("without", "with")
    ]
    assert said == [is_said, False]


def test_crooked_axes(tmp_path, write_series, ramp):
    axes = np.eye(3)
    axes[0, 1] = 0.3
    write_series(tmp_path, ramp, axes=axes)
    refused(tmp_path, "not at right angles")


def test_missing_slices_are_filled_and_said(tmp_path, write_series, ramp):
    kept = [0, 1, 3, 4, 7]
    write_series(tmp_path, ramp[kept], offsets=np.array(kept) * 2.5)

    volume = read_volume(tmp_path)

    np.testing.assert_array_equal(volume.array[0], ramp.astype(int) - 1024)
    assert volume.geometry.spacing[0] == pytest.approx(2.5)
    assert any("3 slices are missing" in note and "2.5 to 7.5 mm" in note for note in volume.notes)


def test_uneven_slices_are_resampled_and_said(tmp_path, write_series, ramp):
    offsets = np.array([0, 2.5, 5, 7.5, 10.9, 14.0, 17.4, 20.0])
    stored = (1000 + 40 * offsets[:, None, None] + np.zeros(SHAPE)).astype(np.uint16)
    write_series(tmp_path, stored, offsets=offsets)

    volume = read_volume(tmp_path)

    spacing = volume.geometry.spacing[0]
    assert spacing == pytest.approx(2.5)
    assert volume.geometry.shape[0] == 9
    np.testing.assert_allclose(volume.array[0, :, 0, 0] + 1024, 1000 + 40 * spacing * np.arange(9), atol=1)
    assert any(
        "slices lie 2.5 to 3.4 mm apart: resampled linearly to 2.5 mm" in note for note in volume.notes
    )


def test_tiny_differences_of_position_are_even(tmp_path, write_series, ramp):
    write_series(tmp_path, ramp, offsets=np.arange(8) * 2.5 + np.array([0, 1, -1, 1, 0, -1, 1, 0]) * 0.004)
    volume = read_volume(tmp_path)
    assert volume.notes == ()
    assert volume.geometry.spacing[0] == pytest.approx(2.5)


def test_two_far_apart_parts_are_no_volume(tmp_path, write_series, ramp):
    write_series(tmp_path, ramp, offsets=[0, 1, 2, 3, 400, 401, 402, 403])
    refused(tmp_path, "slices lie 1 to 397 mm apart", "too unevenly")


def test_copies_of_a_file_are_left_out_and_said(tmp_path, write_series, ramp):
    write_series(tmp_path, ramp)
    for number in (1, 2):
        (tmp_path / f"copy{number}").write_bytes((tmp_path / f"IM000{number}").read_bytes())
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array[0], ramp.astype(int) - 1024)
    assert volume.notes == ("duplicate files left out: 2",)


def test_gantry_tilt_is_straightened_and_said(tmp_path, write_series):
    """Slices start further and further back; after repair the same point holds the same value."""
    tilt = np.tan(np.radians(20))
    drift = np.array([(0.0, tilt * 2.5 * index) for index in range(SHAPE[0])])
    y = np.arange(SHAPE[1]) * 1.25
    # The value of a voxel is its distance towards the back of the patient, in tenths of a mm.
    stored = np.stack([np.repeat(2000 + 10 * (shift[1] + y)[:, None], SHAPE[2], axis=1) for shift in drift])
    write_series(tmp_path, np.rint(stored).astype(np.uint16), drift=drift, rescale=((1, 0),))

    volume = read_volume(tmp_path)

    assert any("gantry tilt" in note for note in volume.notes)
    geometry = volume.geometry
    assert geometry.shape[1] > SHAPE[1]
    assert geometry.spacing == pytest.approx((2.5, 1.25, 0.8))
    for index in [(0, 3, 4), (4, 7, 1), (7, 12, 8)]:
        back = lps_point(geometry, index)[1] - 12.25
        assert volume.array[(0, *index)] == pytest.approx(2000 + 10 * back, abs=1.5)
    # Outside the tilted slices there is padding of the lowest value.
    assert volume.array[0, -1, 0, 0] == volume.array.min()


def test_a_sideways_drift_below_half_a_pixel_is_left_alone(tmp_path, write_series, ramp):
    write_series(tmp_path, ramp, drift=[(0.0, 0.05 * index) for index in range(8)])
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array[0], ramp.astype(int) - 1024)


def test_damaged_files_beside_a_series_are_said(tmp_path, write_series, ramp):
    write_series(tmp_path, ramp)
    (tmp_path / "broken").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    assert "damaged DICOM files left out: 1" in read_volume(tmp_path).notes


def cut(path, share):
    """Leave a share of what stands before the pixels."""
    data = path.read_bytes()
    path.write_bytes(data[: int(data.index(b"\xe0\x7f\x10\x00") * share)])


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("name", ["IM0000", "IM0003", "IM0007"])
def test_a_file_cut_in_its_header_is_left_out_and_said(tmp_path, write_series, ramp, share, name):
    write_series(tmp_path, ramp)
    cut(tmp_path / name, share)
    volume = read_volume(tmp_path)
    assert "damaged DICOM files left out: 1" in volume.notes
    assert volume.geometry.shape[1:] == SHAPE[1:]
    assert volume.geometry.shape[0] in (7, 8)  # at an end it is missing, between others it is filled
    np.testing.assert_allclose(np.diff(volume.array[0].astype(int), axis=0), 100)
    assert len(list_series(tmp_path)) == 1


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_a_folder_of_truncated_files_is_called_so(tmp_path, write_series, ramp, share):
    write_series(tmp_path, ramp)
    for path in tmp_path.iterdir():
        cut(path, share)
    refused(tmp_path, "none of 8 DICOM files can be read", "truncated", "copy the series again")
    refused(tmp_path / "IM0003", "truncated", "copy it again")


def test_a_dicomdir_is_no_damaged_file(tmp_path, write_series, ramp):
    def directory(header, _):
        header.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
        for name in ("SOPClassUID", "Rows", "Columns", "PixelData"):
            del header[name]

    write_series(tmp_path, ramp)
    write_series(tmp_path, ramp[:1], change=directory, prefix="DICOMDIR")
    assert read_volume(tmp_path).notes == ()


def test_a_mosaic_is_refused(tmp_path, write_series, ramp):
    mosaic = lambda header, _: setattr(header, "ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"])  # noqa: E731
    write_series(tmp_path, ramp[:1], modality="MR", change=mosaic)
    refused(tmp_path, "mosaic")


def test_odd_header_values_neither_warn_nor_show(tmp_path, write_series, ramp, capfd):
    """pydicom quotes the bad value in a warning; warnings are errors here."""

    def odd(header, _):
        header.add_new(0x00100030, "DA", "Sprenger was here")
        header.add_new(0x00200052, "UI", "not a uid 4711")

    with pytest.warns(UserWarning, match="Invalid value for VR"):
        write_series(tmp_path, ramp, change=odd, series=generate_uid())
    assert read_volume(tmp_path).geometry.shape == SHAPE
    assert capfd.readouterr() == ("", "")
