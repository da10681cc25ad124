"""DICOM series whose files come in any order, and what is read from them."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.pixels import set_pixel_data
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid

from medssl.errors import InputError
from medssl.io import list_series, read_volume, write_volume
from medssl.io.axes import lps_point

SHAPE = (6, 7, 9)


@pytest.fixture
def stored(rng):
    """(6, 7, 9) 12-bit values, different everywhere."""
    return rng.permutation(4096)[: np.prod(SHAPE)].reshape(SHAPE).astype(np.uint16)


@pytest.fixture
def axes(oblique):
    """(3, 3) LPS directions of rows, columns and slices as columns."""
    return np.asarray(oblique().geometry.direction)[::-1, ::-1]


def test_a_shuffled_reversed_oblique_ct_series(tmp_path, write_series, stored, axes):
    write_series(tmp_path, stored, axes=axes)

    volume = read_volume(tmp_path)

    np.testing.assert_array_equal(volume.array[0], stored.astype(int) - 1024)
    assert volume.array.dtype == np.int16
    assert volume.modality == "CT"
    assert volume.notes == ()
    geometry = volume.geometry
    np.testing.assert_allclose(geometry.spacing, (2.5, 1.25, 0.8), atol=1e-6)
    np.testing.assert_allclose(lps_point(geometry, (0, 0, 0)), (-31.5, 12.25, 77.0), atol=1e-6)
    expected = np.array([-31.5, 12.25, 77.0]) + axes @ (np.array([8, 6, 5]) * (0.8, 1.25, 2.5))
    np.testing.assert_allclose(lps_point(geometry, (5, 6, 8)), expected, atol=1e-4)
    assert geometry.frame_of_reference_uid == "1.2.3.4"


def test_agrees_with_the_series_reader_of_simpleitk(tmp_path, write_series, stored, axes):
    write_series(tmp_path, stored, axes=axes)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()

    volume = read_volume(tmp_path)

    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image))
    for index in [(0, 0, 0), (5, 6, 8), (2, 1, 7)]:
        np.testing.assert_allclose(
            lps_point(volume.geometry, index), image.TransformIndexToPhysicalPoint(index[::-1]), atol=1e-4
        )


def test_a_mask_written_for_a_series_lies_on_it(tmp_path, write_series, stored, axes):
    write_series(tmp_path / "dicom", stored, axes=axes)
    volume = read_volume(tmp_path / "dicom")
    write_volume(volume.with_array((volume.array > 0).astype(np.uint8)), tmp_path / "mask.nii.gz")
    assert read_volume(tmp_path / "mask.nii.gz").geometry.matches(volume.geometry, tolerance=1e-3)


def test_ids_are_stable_and_say_nothing_about_the_patient(tmp_path, write_series, stored):
    write_series(tmp_path / "a", stored)
    write_series(tmp_path / "b", stored)
    names = {folder: read_volume(tmp_path / folder).id for folder in "ab"}
    assert names["a"] != names["b"]
    assert read_volume(tmp_path / "a").id == names["a"]
    assert names["a"].startswith("ct-")
    assert len(names["a"]) < 16


def test_the_description_is_shown_without_the_patient(tmp_path, write_series, stored):
    write_series(tmp_path, stored)
    [info] = list_series(tmp_path)
    assert info.description == "thin *** ***"
    assert "Sprenger" not in repr(read_volume(tmp_path))


@pytest.mark.parametrize(
    ("dtype", "rescale", "expected"),
    [
        (np.uint16, ((1, -1024),), np.int16),
        (np.int16, ((1, 0),), np.int16),
        (np.uint16, None, np.int16),
        (np.uint16, ((2, -100),), np.int16),
        (np.uint16, ((0.37, 1.5),), np.float32),
        (np.uint16, ((0.37, 0), (0.91, 4)), np.float32),
        (np.uint8, ((1, 0),), np.int16),
    ],
)
def test_every_file_has_its_own_rescale(tmp_path, write_series, dtype, rescale, expected):
    stored = np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)
    write_series(tmp_path, stored, modality="PT", rescale=rescale)

    volume = read_volume(tmp_path)

    pairs = [(rescale or ((1, 0),))[index % len(rescale or (1,))] for index in range(len(stored))]
    values = np.stack(
        [
            pixels.astype(float) * slope + intercept
            for pixels, (slope, intercept) in zip(stored, pairs, strict=True)
        ]
    )
    assert volume.array.dtype == expected
    np.testing.assert_allclose(volume.array[0], values, rtol=1e-6)


def test_values_beyond_16_bits_are_kept(tmp_path, write_series):
    stored = np.full(SHAPE, 65535, np.uint16)
    write_series(tmp_path, stored, modality="MR", rescale=((1, 10),))
    volume = read_volume(tmp_path)
    assert volume.array.dtype == np.int32
    assert (volume.array == 65545).all()


def test_bits_above_the_stored_ones_are_cleared(tmp_path, write_series, stored):
    def twelve_bits(header, index):
        pixels = stored[index].copy()
        pixels[0, 0] |= 0xF000  # an overlay, as old scanners stored it
        header.BitsStored, header.HighBit, header.PixelData = 12, 11, pixels.tobytes()

    write_series(tmp_path, stored, change=twelve_bits)
    np.testing.assert_array_equal(read_volume(tmp_path).array[0], stored.astype(int) - 1024)


def test_signed_12_bit_pixels_keep_their_sign(tmp_path, write_series, rng):
    values = rng.integers(-2048, 2048, SHAPE).astype(np.int16)

    def twelve_bits(header, index):
        header.BitsStored, header.HighBit = 12, 11
        header.PixelData = (values[index] & 0x0FFF).tobytes()

    write_series(tmp_path, values, rescale=((1, 0),), change=twelve_bits)
    np.testing.assert_array_equal(read_volume(tmp_path).array[0], values)


def test_compressed_and_implicit_files_hold_the_same_values(tmp_path, write_series, stored):
    def rle(header, index):
        set_pixel_data(header, stored[index], "MONOCHROME2", 16)
        header.compress(RLELossless, generate_instance_uid=False)

    def implicit(header, _):
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    for name, change in (("rle", rle), ("implicit", implicit)):
        write_series(tmp_path / name, stored, change=change)
        np.testing.assert_array_equal(read_volume(tmp_path / name).array[0], stored.astype(int) - 1024)


@pytest.mark.parametrize(
    ("modality", "rescale"),
    [
        ("CT", ((1, -1024),)),
        ("MR", ((1, 0),)),
        ("MR", ((2, 5),)),  # GDCM would leave this rescale aside
        ("PT", ((0.5, 0), (0.25, 3))),  # ITK's series reader would keep the type of the first file
    ],
)
def test_jpeg_2000_holds_the_same_values(tmp_path, write_series, stored, modality, rescale):
    stored = np.kron(stored, np.ones((1, 8, 8), np.uint16))  # the encoder wants more pixels

    def jpeg(header, index):
        set_pixel_data(header, stored[index], "MONOCHROME2", 16)
        header.compress(JPEG2000Lossless, generate_instance_uid=False)

    write_series(tmp_path / "raw", stored, modality=modality, rescale=rescale)
    write_series(tmp_path / "jpeg", stored, modality=modality, rescale=rescale, change=jpeg)

    raw, packed = read_volume(tmp_path / "raw"), read_volume(tmp_path / "jpeg")

    assert packed.array.dtype == raw.array.dtype
    np.testing.assert_array_equal(packed.array, raw.array)
    assert packed.notes == raw.notes
    assert packed.geometry.matches(raw.geometry)


def test_the_largest_of_several_series_is_taken_and_said(tmp_path, write_series, stored):
    large = write_series(tmp_path / "study" / "one", stored)
    small = write_series(
        tmp_path / "study" / "two", stored[:3] // 2, modality="MR", rescale=None, prefix="MR"
    )
    (tmp_path / "study" / "readme.txt").write_text("not an image")

    infos = list_series(tmp_path)
    assert [(info.uid, info.modality, info.shape) for info in infos] == [
        (large, "CT", (6, 7, 9)),
        (small, "MR", (3, 7, 9)),
    ]
    np.testing.assert_allclose(infos[0].spacing, (2.5, 1.25, 0.8))

    volume = read_volume(tmp_path)
    assert volume.geometry.shape == SHAPE
    assert any("2 series" in note and large in note for note in volume.notes)

    chosen = read_volume(tmp_path, series=small)
    np.testing.assert_array_equal(chosen.array[0], stored[:3] // 2)
    assert chosen.modality == "MR"
    assert chosen.notes == ()

    with pytest.raises(InputError, match=f"has no image series 1.9.9: choose one of {large}, {small}"):
        read_volume(tmp_path, series="1.9.9")


def test_one_file_stands_for_its_series(tmp_path, write_series, stored):
    write_series(tmp_path, stored)
    write_series(tmp_path, np.concatenate([stored, stored]), prefix="XX", offsets=np.arange(12) * 2.5)

    volume = read_volume(tmp_path / "IM0002")

    np.testing.assert_array_equal(volume.array[0], stored.astype(int) - 1024)
    assert "the file is one of 6 of its series: the whole series was read" in volume.notes
    assert [info.files for info in list_series(tmp_path / "IM0002")] == [6]


def test_a_lone_file_is_a_volume_of_one_slice(tmp_path, write_series, stored):
    write_series(tmp_path, stored[:1])
    volume = read_volume(next(tmp_path.iterdir()))
    assert volume.geometry.shape == (1, 7, 9)
    assert volume.geometry.spacing[0] == 2.5


def test_localisers_of_one_series_become_separate_stacks(tmp_path, write_series, stored):
    uid = write_series(tmp_path, stored)
    sagittal = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])
    write_series(tmp_path, stored[:2], axes=sagittal, series=uid, prefix="SAG")

    assert [(info.uid, info.shape[0]) for info in list_series(tmp_path)] == [(uid, 6), (f"{uid}:2", 2)]
    assert read_volume(tmp_path).geometry.shape == SHAPE
    second = read_volume(tmp_path, series=f"{uid}:2")
    np.testing.assert_allclose(np.asarray(second.geometry.direction)[::-1, ::-1], sagittal, atol=1e-6)


def test_times_of_one_position_are_frames(tmp_path, write_series, stored):
    uid = write_series(
        tmp_path, stored, change=lambda header, _: setattr(header, "TemporalPositionIdentifier", 2)
    )
    early = lambda header, _: setattr(header, "TemporalPositionIdentifier", 1)  # noqa: E731
    write_series(tmp_path, stored + 5, series=uid, prefix="T", change=early)

    first, second = read_volume(tmp_path), read_volume(tmp_path, frame=1)

    np.testing.assert_array_equal(first.array[0], stored.astype(int) + 5 - 1024)
    np.testing.assert_array_equal(second.array[0], stored.astype(int) - 1024)
    assert any("2 volumes" in note and "frame 1" in note for note in second.notes)
    assert first.id != second.id
    assert list_series(tmp_path)[0].frames == 2
    with pytest.raises(InputError, match="has no frame 2: choose 0 to 1"):
        read_volume(tmp_path, frame=2)


def test_an_incomplete_last_time_is_left_out_and_said(tmp_path, write_series, stored):
    uid = write_series(tmp_path, stored)
    late = lambda header, _: setattr(header, "TemporalPositionIdentifier", 9)  # noqa: E731
    write_series(tmp_path, stored[:2], series=uid, prefix="T", change=late)

    volume = read_volume(tmp_path)

    np.testing.assert_array_equal(volume.array[0], stored.astype(int) - 1024)
    assert any("slices have 1 to 2 pictures" in note for note in volume.notes)


def test_multi_frame_files(tmp_path, write_enhanced, stored):
    positions = [(1.0, 2.0, 3.0 * index) for index in (4, 0, 2, 1, 5, 3)]
    slopes = [1, 2, 1, 0.5, 1, 1]
    write_enhanced(tmp_path / "enhanced.dcm", stored, positions, slopes)

    volume = read_volume(tmp_path / "enhanced.dcm")

    order = np.argsort([position[2] for position in positions])
    expected = np.stack([stored[index] * slopes[index] for index in order])
    np.testing.assert_allclose(volume.array[0], expected)
    assert volume.geometry.spacing == (3.0, 1.25, 0.8)
    assert volume.geometry.origin == (0.0, 2.0, 1.0)
    assert volume.modality == "MR"
    np.testing.assert_array_equal(read_volume(tmp_path).array, volume.array)


def test_a_picture_without_a_place(tmp_path, write_series, stored):
    def drop(header, _):
        del header.ImagePositionPatient, header.ImageOrientationPatient
        header.Modality = "DX"

    write_series(tmp_path, stored[:1], change=drop)
    volume = read_volume(tmp_path)
    assert volume.geometry.shape == (7, 9)
    assert volume.geometry.spacing == (1.25, 0.8)
    assert any("no position" in note for note in volume.notes)


def test_slices_without_positions_follow_their_numbers(tmp_path, write_series, stored):
    def drop(header, _):
        del header.ImagePositionPatient

    write_series(tmp_path, stored, change=drop)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array[0], stored[::-1].astype(int) - 1024)
    assert volume.geometry.spacing == (2.5, 1.25, 0.8)
    assert any("no positions" in note for note in volume.notes)


def test_colour_and_inverted_pictures_become_grey(tmp_path, write_series, rng):
    grey = rng.integers(0, 255, SHAPE).astype(np.uint8)

    def colour(header, index):
        header.SamplesPerPixel, header.PhotometricInterpretation, header.PlanarConfiguration = 3, "RGB", 0
        header.PixelData = np.repeat(grey[index][..., None], 3, axis=-1).tobytes()

    def inverted(header, index):
        header.PhotometricInterpretation, header.PixelData = "MONOCHROME1", (255 - grey[index]).tobytes()

    for name, change, word in (("c", colour, "colour"), ("i", inverted, "inverted")):
        write_series(tmp_path / name, grey, rescale=None, modality="MR", change=change)
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.array[0], grey)
        assert any(word in note for note in volume.notes)


def test_a_modality_that_is_not_stated_is_inferred(tmp_path, write_series, stored):
    def drop(header, _):
        header.Modality = ""

    write_series(tmp_path, stored, change=drop)
    volume = read_volume(tmp_path)
    assert volume.modality == "CT"
    assert any("not stated" in note for note in volume.notes)


def test_files_without_a_series_uid_are_still_grouped(tmp_path, write_series, stored):
    def drop(header, _):
        header.SeriesInstanceUID = ""
        header.StudyInstanceUID = "1.2"

    write_series(tmp_path, stored, change=drop)
    volume = read_volume(tmp_path)
    assert volume.geometry.shape == SHAPE
    [info] = list_series(tmp_path)
    assert info.uid.startswith("unnamed-")
    np.testing.assert_array_equal(read_volume(tmp_path, series=info.uid).array, volume.array)


def test_units_of_pet_are_said(tmp_path, write_series, stored):
    write_series(tmp_path, stored, modality="PT", change=lambda header, _: setattr(header, "Units", "BQML"))
    volume = read_volume(tmp_path)
    assert volume.modality == "PT"
    assert "PET values are in Bq/ml" in volume.notes


def test_series_uids_must_be_given_for_dicom_only(tmp_path, oblique):
    write_volume(oblique(), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="only DICOM has series"):
        read_volume(tmp_path / "a.nii.gz", series=generate_uid())
    assert list_series(tmp_path / "a.nii.gz") == []
