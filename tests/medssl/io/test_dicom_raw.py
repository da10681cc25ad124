"""Real DICOM folders from several vendors: an image, an image with a stated repair, or a reason."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medssl.errors import InputError
from medssl.io import list_series, read_volume
from medssl.io.dicom_seg import write_segmentation

pytestmark = pytest.mark.data

IMAGES = {
    "STS_042_CT": ("CT", (49, 162, 134)),
    "STS_042_MR_T1": ("MR", (42, 97, 54)),
    "STS_042_PET": ("PT", (49, 30, 26)),
    "dcmqi_ct3slice": ("CT", (3, 512, 512)),
    "derived_mixed_series": ("CT", (5, 512, 512)),
    "dicom2nifti_anatomical_001_implicit": ("MR", (4, 256, 256)),
    "dicom2nifti_failing_notavolume_001": ("CT", (1, 512, 512)),
    "dicom2nifti_failing_slicecount_001": ("MR", (2, 256, 256)),
    "dicom2nifti_failing_sliceincrement_001": ("CT", (5, 512, 512)),
    "dicom2nifti_ge_dti_001": ("MR", (4, 128, 128)),
    "dicom2nifti_ge_fmri_001": ("MR", (4, 64, 64)),
    "dicom2nifti_generic_anatomical_001": ("MR", (4, 256, 256)),
    "dicom2nifti_generic_anatomical_002_non_isotropic": ("MR", (4, 28, 64)),
    "dicom2nifti_generic_compressed_j2k_001": ("MR", (4, 256, 256)),
    "dicom2nifti_generic_compressed_jpeg_001": ("MR", (4, 256, 256)),
    "dicom2nifti_generic_compressed_jpegls_001": ("MR", (4, 256, 256)),
    "dicom2nifti_generic_compressed_rle_001": ("MR", (4, 256, 256)),
    "dicom2nifti_generic_rgb_001": ("MR", (4, 77, 52)),
    "dicom2nifti_philips_anatomical_001": ("MR", (4, 240, 240)),
    "dicom2nifti_philips_dti_001": ("MR", (2, 128, 128)),
    "dicom2nifti_philips_enhanced_anatomical_001": ("MR", (8, 256, 256)),
    "dicom2nifti_philips_enhanced_dti_001": ("MR", (8, 128, 128)),
    "dicom2nifti_siemens_anatomical_001": ("MR", (4, 256, 256)),
    "dicom2nifti_siemens_fmri_classic_001": ("MR", (4, 192, 192)),
    "lungmask_ct_2slices": ("CT", (2, 512, 512)),
    "totalseg_ct_20slices": ("CT", (20, 512, 512)),
}
NOTES = {
    "STS_042_PET": "PET values are in",
    "derived_mixed_series": "4 series here",
    "dicom2nifti_failing_notavolume_001": "4 volumes",
    "dicom2nifti_failing_sliceincrement_001": "1 slice is missing",
    "dicom2nifti_ge_dti_001": "2 volumes",
    "dicom2nifti_ge_fmri_001": "2 volumes",
    "dicom2nifti_generic_rgb_001": "colour pictures",
    "dicom2nifti_philips_dti_001": "4 volumes",
    "dicom2nifti_philips_enhanced_dti_001": "4 volumes",
    "dicom2nifti_siemens_fmri_classic_001": "2 volumes",
    "lungmask_ct_2slices": "modality not stated",
}
REFUSED = {
    "STS_042_CT_rtstruct": "contours",
    "STS_042_MR_T1_rtstruct": "contours",
    "STS_042_PET_rtstruct": "contours",
    "dcmqi_ct3slice_SEG": "a segmentation",
}
PLAIN = [
    "STS_042_CT",
    "STS_042_MR_T1",
    "dcmqi_ct3slice",
    "dicom2nifti_anatomical_001_implicit",
    "dicom2nifti_generic_compressed_j2k_001",
    "dicom2nifti_generic_compressed_jpeg_001",
    "dicom2nifti_generic_compressed_jpegls_001",
    "dicom2nifti_generic_compressed_rle_001",
    "dicom2nifti_philips_anatomical_001",
    "dicom2nifti_siemens_anatomical_001",
    "totalseg_ct_20slices",
]


@pytest.fixture
def raw() -> Path:
    """The folder of DICOM folders."""
    return Path(os.environ["MEDSSL_DATA"]) / "dicom_raw"


def test_every_folder_has_an_expectation(raw):
    assert {path.name for path in raw.iterdir() if path.is_dir()} == {*IMAGES, *REFUSED}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image(raw, name, capfd):
    volume = read_volume(raw / name)

    assert (volume.modality, volume.geometry.shape) == IMAGES[name]
    assert np.isfinite(volume.array).all()
    assert volume.array.dtype in (np.int16, np.float32)
    expected = NOTES.get(name)
    if expected is None:
        assert volume.notes == ()
    else:
        assert any(expected in note for note in volume.notes)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", IMAGES)
def test_a_mask_leaves_as_a_segmentation_of_its_series(raw, name, drawn_in, tmp_path):
    pytest.importorskip("highdicom")
    volume = read_volume(raw / name)
    labels = np.zeros(volume.geometry.shape, np.uint8)
    labels[tuple(slice(n // 2, n // 2 + 3) for n in labels.shape)] = 1
    labels[-1, -1, -1] = 2
    write_segmentation(volume.with_array(labels), {1: "middle"}, raw / name, tmp_path / "mask.dcm")
    found = pydicom.dcmread(tmp_path / "mask.dcm")
    assert [str(segment.SegmentLabel) for segment in found.SegmentSequence] == ["middle", "class 2"]
    np.testing.assert_array_equal(drawn_in(found, volume.geometry), labels)


@pytest.mark.parametrize("name", REFUSED)
def test_a_reason(raw, name):
    with pytest.raises(InputError, match=f"{name}: holds {REFUSED[name]}"):
        read_volume(raw / name)
    assert all("not an image" in info.reason for info in list_series(raw / name))


@pytest.mark.parametrize("name", PLAIN)
def test_plain_series_agree_with_simpleitk(raw, name):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(raw / name)))
    image = reader.Execute()

    volume = read_volume(raw / name)

    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image))
    corner = tuple(n - 1 for n in volume.geometry.shape)
    for index in [(0, 0, 0), corner]:
        expected = image.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]])
        np.testing.assert_allclose(volume.geometry.to_world(index)[::-1], expected, atol=0.02)


def test_slopes_of_single_pet_slices_are_applied(raw):
    volume = read_volume(raw / "STS_042_PET")
    single = [
        sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0] for path in (raw / "STS_042_PET").iterdir()
    ]
    assert volume.array.max() == pytest.approx(max(picture.max() for picture in single), rel=1e-5)


def test_the_label_of_a_series_lies_on_it(raw):
    volume = read_volume(raw / "totalseg_ct_20slices")
    label = read_volume(raw / "totalseg_ct_20slices_label.nii.gz")
    assert label.modality == ""
    assert sorted(label.geometry.shape) == sorted(volume.geometry.shape)


@pytest.mark.parametrize("name", ["derived_mixed_series"])
def test_each_series_of_a_mixed_folder_can_be_chosen(raw, name):
    infos = list_series(raw / name)
    assert [info.modality for info in infos] == ["CT", "MR", "MR", "MR"]
    for info in infos:
        assert read_volume(raw / name, series=info.uid).modality == info.modality
