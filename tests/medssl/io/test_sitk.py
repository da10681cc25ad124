"""Images survive a round trip, and other libraries see them in the same place."""

from __future__ import annotations

import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medssl.errors import InputError
from medssl.io import read_volume, write_volume
from medssl.io.axes import lps_point
from medssl.volume import Geometry, Volume

VOLUME_FORMATS = [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"]
CORNERS = {2: [(0, 0), (6, 10), (3, 1)], 3: [(0, 0, 0), (4, 6, 10), (1, 5, 2)]}


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("suffix", VOLUME_FORMATS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_round_trip_keeps_values_and_place(tmp_path, oblique, spatial_dims, suffix, dtype):
    volume = oblique(spatial_dims, dtype)
    path = tmp_path / f"scan{suffix}"

    write_volume(volume, path)
    again = read_volume(path)

    assert again.array.dtype == dtype
    np.testing.assert_array_equal(again.array, volume.array)
    assert again.geometry.matches(volume.geometry, tolerance=1e-4)
    assert again.geometry.has_spacing
    assert again.id.startswith("scan-")


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("suffix", VOLUME_FORMATS)
def test_simpleitk_sees_each_voxel_at_the_same_point(tmp_path, oblique, spatial_dims, suffix):
    volume = oblique(spatial_dims)
    write_volume(volume, tmp_path / f"scan{suffix}")

    image = sitk.ReadImage(str(tmp_path / f"scan{suffix}"))

    for index in CORNERS[spatial_dims]:
        place = index[::-1]
        assert image.GetPixel(*place) == volume.array[(0, *index)]
        np.testing.assert_allclose(
            image.TransformIndexToPhysicalPoint(place), lps_point(volume.geometry, index), atol=1e-4
        )


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nibabel_sees_each_voxel_at_the_same_point_in_ras(tmp_path, oblique, suffix):
    volume = oblique()
    write_volume(volume, tmp_path / f"scan{suffix}")

    image = nib.load(tmp_path / f"scan{suffix}")

    for index in CORNERS[3]:
        place = index[::-1]
        assert np.asarray(image.dataobj)[place] == volume.array[(0, *index)]
        ras = image.affine @ [*place, 1]
        np.testing.assert_allclose(ras[:3] * [-1, -1, 1], volume.geometry.to_world(index)[::-1], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_reads_what_nibabel_writes(tmp_path, oblique, dtype):
    volume = oblique(dtype=dtype)
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ volume.geometry.matrix[::-1, ::-1]
    affine[:3, 3] = np.array(volume.geometry.origin[::-1]) * [-1, -1, 1]
    nib.save(nib.Nifti1Image(volume.array[0].T, affine), tmp_path / "scan.nii.gz")

    again = read_volume(tmp_path / "scan.nii.gz")

    np.testing.assert_array_equal(again.array, volume.array)
    assert again.geometry.matches(volume.geometry, tolerance=1e-4)


def test_a_mask_takes_exactly_the_place_of_its_image(tmp_path, oblique):
    volume = oblique()
    mask = volume.with_array((volume.array[0] > 50).astype(np.uint8))

    write_volume(mask, tmp_path / "mask.nii.gz")

    image = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    write_volume(volume, tmp_path / "image.nii.gz")
    source = sitk.ReadImage(str(tmp_path / "image.nii.gz"))
    assert image.GetPixelID() == sitk.sitkUInt8
    assert image.GetOrigin() == source.GetOrigin()
    assert image.GetSpacing() == source.GetSpacing()
    assert image.GetDirection() == source.GetDirection()


@pytest.mark.parametrize("suffix", VOLUME_FORMATS)
def test_several_channels_survive(tmp_path, rng, suffix):
    geometry = Geometry.from_arrays((3, 4, 5), (2, 1, 0.5))
    volume = Volume(rng.normal(size=(6, 3, 4, 5)).astype(np.float32), geometry)

    write_volume(volume, tmp_path / f"maps{suffix}")

    found = read_volume(tmp_path / f"maps{suffix}")
    np.testing.assert_array_equal(found.array, volume.array)
    assert "6 values per voxel: where one is needed it is their mean" in found.notes


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("top", [200, 60000])
def test_pictures_keep_values_and_say_that_size_is_unknown(tmp_path, rng, suffix, top):
    dtype = np.uint8 if top < 256 else np.uint16
    volume = Volume(rng.integers(0, top, (1, 6, 9)).astype(dtype), Geometry.from_arrays((6, 9), (0.5, 0.7)))
    write_volume(volume, tmp_path / f"slice{suffix}")

    again = read_volume(tmp_path / f"slice{suffix}")

    np.testing.assert_array_equal(again.array, volume.array)
    assert again.spatial_dims == 2
    assert not again.geometry.has_spacing
    assert again.geometry.spacing == (1.0, 1.0)
    assert again.modality == ""
    assert any("not mm" in note for note in again.notes)


def test_a_jpeg_is_read_as_brightness(tmp_path):
    colour = np.zeros((8, 8, 3), dtype=np.uint8)
    colour[..., 0] = 200
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(tmp_path / "red.jpg"))

    volume = read_volume(tmp_path / "red.jpg")

    assert volume.array.shape == (1, 8, 8)
    np.testing.assert_allclose(volume.array, 0.299 * 200, atol=3)
    assert any("coloured" in note for note in volume.notes)


def test_one_slice_stays_a_volume_and_an_image_stays_flat(tmp_path, rng):
    thin = Volume(rng.integers(0, 999, (1, 1, 6, 9)).astype(np.int16), Geometry.from_arrays((1, 6, 9)))
    flat = Volume(rng.integers(0, 999, (1, 6, 9)).astype(np.int16), Geometry.from_arrays((6, 9)))
    write_volume(thin, tmp_path / "thin.nii.gz")
    write_volume(flat, tmp_path / "flat.nii.gz")

    assert read_volume(tmp_path / "thin.nii.gz").geometry.shape == (1, 6, 9)
    assert read_volume(tmp_path / "flat.nii.gz").geometry.shape == (6, 9)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_a_frame_of_a_4d_file_keeps_its_place(tmp_path, oblique, suffix):
    volumes = [oblique() for _ in range(3)]
    frames = []
    for number, volume in enumerate(volumes):
        write_volume(volume, tmp_path / f"{number}.mha")
        frames.append(sitk.ReadImage(str(tmp_path / f"{number}.mha")) + number)
    sitk.WriteImage(sitk.JoinSeries(frames), str(tmp_path / f"time{suffix}"))

    second = read_volume(tmp_path / f"time{suffix}", frame=2)

    np.testing.assert_array_equal(second.array, volumes[2].array + 2)
    assert second.geometry.matches(volumes[2].geometry, tolerance=1e-3)
    assert any("3 volumes" in note and "frame 2" in note for note in second.notes)
    with pytest.raises(InputError, match="has no frame 3: choose 0 to 2"):
        read_volume(tmp_path / f"time{suffix}", frame=3)


def test_scaled_integers_become_the_values_they_stand_for(tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    image.to_filename(tmp_path / "scaled.nii")

    volume = read_volume(tmp_path / "scaled.nii")

    stored = np.asarray(nib.load(tmp_path / "scaled.nii").dataobj)
    np.testing.assert_allclose(volume.array[0].T, stored)
    assert volume.array.dtype == np.float32


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_voxels_are_set_to_the_lowest_value_and_counted(tmp_path, suffix, dtype):
    values = np.linspace(-5.5, 9, 24, dtype=dtype).reshape(2, 3, 4)
    values[0, 0, 1] = np.nan
    values[1, 2, 3] = np.inf
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / f"holes{suffix}"))

    volume = read_volume(tmp_path / f"holes{suffix}")

    expected = np.where(np.isfinite(values), values, -5.5).astype(np.float32)
    np.testing.assert_array_equal(volume.array[0], expected)
    assert "2 NaN or infinite voxels were set to the lowest value, -5.5" in volume.notes


def test_nan_in_another_frame_is_not_counted(tmp_path):
    values = np.linspace(-5.5, 9, 48, dtype=np.float32).reshape(2, 3, 4, 2)
    values[1, 2, 3, 1] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "time.nii.gz")

    np.testing.assert_array_equal(read_volume(tmp_path / "time.nii.gz").array[0].T, values[..., 0])
    second = read_volume(tmp_path / "time.nii.gz", frame=1)
    assert second.array[0, 3, 2, 1] == np.float32(np.nanmin(values[..., 1]))
    assert any(note.startswith("1 NaN") for note in second.notes)


def test_only_nan_is_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.full((2, 3, 4), np.nan, np.float32), np.eye(4)), tmp_path / "nan.nii")
    with pytest.raises(InputError, match=r"nan\.nii: no voxel holds a number"):
        read_volume(tmp_path / "nan.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".jpg", ".tif"])
@pytest.mark.parametrize("content", [b"", b"this is no image\n" * 60], ids=["empty", "text"])
def test_what_is_no_image_is_refused_in_one_line(tmp_path, capfd, suffix, content):
    path = tmp_path / f"fake{suffix}"
    path.write_bytes(content)

    with pytest.raises(InputError) as error:
        read_volume(path)

    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")  # the C libraries are kept quiet


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".tif"])
@pytest.mark.parametrize("part", [0.5, 0.97])
def test_a_truncated_file_is_refused(tmp_path, rng, capfd, suffix, part):
    shape = (40, 50) if suffix in (".png", ".tif") else (12, 40, 50)
    volume = Volume(rng.integers(0, 255, (1, *shape)).astype(np.uint8), Geometry.from_arrays(shape))
    path = tmp_path / f"cut{suffix}"
    write_volume(volume, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])

    with pytest.raises(InputError, match=rf"cut\{suffix}: .*(truncated|damaged)"):
        read_volume(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_spacing_of_zero_is_refused(tmp_path, rng, suffix):
    geometry = Geometry.from_arrays((3, 4, 5), (2.5, 1.25, 0.8))
    volume = Volume(rng.integers(0, 255, (1, 3, 4, 5)).astype(np.uint8), geometry)
    path = tmp_path / f"zero{suffix}"
    write_volume(volume, path)
    data = path.read_bytes()
    assert data.count(b"2.5") == 1
    path.write_bytes(data.replace(b"2.5", b"0.0"))

    with pytest.raises(InputError, match="spacing is not positive"):
        read_volume(path)


def test_sheared_axes_are_refused(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.3
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), affine), tmp_path / "sheared.nii")
    with pytest.raises(InputError, match="not at right angles"):
        read_volume(tmp_path / "sheared.nii")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("scan.nhdr", "space directions: (", "space directions: (0.5,0.5,0) (", "not at right angles"),
        ("scan.mhd", "DimSize = 5 4 3", "DimSize = 5 4 0", "holds no voxel"),
    ],
)
def test_text_headers_that_make_no_grid_are_refused_in_words(tmp_path, name, old, new, words):
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.float32).reshape(3, 4, 5))
    sitk.WriteImage(image, str(tmp_path / name))
    text = (tmp_path / name).read_text()
    assert old in text
    text = text.replace("(1,0,0) (0,1,0)", "(0,1,0)") if "space directions" in old else text
    (tmp_path / name).write_text(text.replace(old, new))
    with pytest.raises(InputError, match=words):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_position_that_is_no_number_is_said(tmp_path, oblique, value):
    path = tmp_path / "scan.mhd"
    write_volume(oblique(), path)
    assert not any("position" in note for note in read_volume(path).notes)
    path.write_text(re.sub(r"Offset = \S+", f"Offset = {value}", path.read_text()))
    volume = read_volume(path)
    assert volume.geometry.origin == (0.0, 0.0, 0.0)
    assert any(f"position in the patient is not a number (Offset = {value}" in note for note in volume.notes)


def test_a_missing_data_file_is_refused(tmp_path, oblique):
    write_volume(oblique(), tmp_path / "scan.mhd")
    [data] = [path for path in tmp_path.iterdir() if path.suffix != ".mhd"]
    data.unlink()
    with pytest.raises(InputError, match=r"scan\.mhd: .*data file"):
        read_volume(tmp_path / "scan.mhd")


def test_unknown_orientation_is_said(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), None), tmp_path / "somewhere.nii")
    assert any("no orientation" in note for note in read_volume(tmp_path / "somewhere.nii").notes)


@pytest.mark.parametrize("name", ["a.jpg", "a.dcm", "a.txt", "a"])
def test_formats_that_cannot_be_written_are_refused(tmp_path, oblique, name):
    with pytest.raises(InputError, match=r"cannot be written: end the name with one of \.nii"):
        write_volume(oblique(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_volume_does_not_fit_into_a_picture(tmp_path, oblique):
    with pytest.raises(InputError, match="one 2D channel"):
        write_volume(oblique(), tmp_path / "a.png")
    with pytest.raises(InputError, match="from 0 to 65535"):
        write_volume(oblique(2), tmp_path / "a.png")


def test_a_failed_write_leaves_the_old_file(tmp_path, oblique, monkeypatch):
    volume = oblique()
    path = tmp_path / "mask.nii.gz"
    write_volume(volume, path)
    before = path.read_bytes()

    def disk_full(image: sitk.Image, name: str, **_: object) -> None:
        with open(name, "wb") as handle:
            handle.write(b"half")
        raise RuntimeError("no space left")

    monkeypatch.setattr(sitk, "WriteImage", disk_full)
    with pytest.raises(InputError, match="cannot be written"):
        write_volume(volume.with_array(volume.array * 0), path)

    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mask.nii.gz"]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("left", [0.0, 0.6])
def test_a_write_that_ended_early_in_silence_leaves_the_old_file(
    tmp_path, oblique, monkeypatch, suffix, left
):
    """ITK's writers of NIfTI and PNG say nothing when the disk is full."""
    volume, path = oblique(), tmp_path / f"mask{suffix}"
    write_volume(volume, path)
    before, write = path.read_bytes(), sitk.WriteImage

    def disk_full(image: sitk.Image, name: str, **options: object) -> None:
        write(image, name, **options)
        with open(name, "rb+") as handle:
            handle.truncate(int(left * handle.seek(0, 2)))

    monkeypatch.setattr(sitk, "WriteImage", disk_full)
    with pytest.raises(InputError, match=r"cannot be written whole \(disk full\?\); free some space"):
        write_volume(volume.with_array(volume.array[..., ::-1].copy()), path)
    assert path.read_bytes() == before


def test_equal_names_with_other_voxels_get_other_ids(tmp_path, oblique):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_volume(oblique(), tmp_path / name / "image.nii.gz")
    one, other = (read_volume(tmp_path / name / "image.nii.gz").id for name in "ab")
    assert one != other
    assert read_volume(tmp_path / "a" / "image.nii.gz").id == one


@pytest.mark.parametrize(
    ("suffix", "changes"),
    [
        (".nrrd", {b"space directions: (2,0,0) (0,3,0) (0,0,4)\n": b""}),
        (
            ".nrrd",
            {
                b"space directions: (2,0,0) (0,3,0) (0,0,4)": b"spacings: 2 3 nan",
                b"space: left-posterior-superior\n": b"",
                b"space origin: (0,0,0)\n": b"",
            },
        ),
        (".mha", {b"ElementSpacing = 2 3 4\n": b""}),
    ],
)
def test_a_missing_spacing_is_said(tmp_path, suffix, changes):
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    image.SetSpacing((2, 3, 4))
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(image, str(path))
    stated = read_volume(path)
    assert stated.geometry.has_spacing
    assert not any("spacing" in note for note in stated.notes)
    data = path.read_bytes()
    for old, new in changes.items():
        assert old in data
        data = data.replace(old, new)
    path.write_bytes(data)

    volume = read_volume(path)

    assert "no spacing stated: taken as 1 mm" in volume.notes
    assert volume.geometry.spacing[0] == 1
    assert not volume.geometry.has_spacing
