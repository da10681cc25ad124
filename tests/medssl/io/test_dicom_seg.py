from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medssl.errors import InputError
from medssl.io import read_volume
from medssl.io.dicom_seg import write_segmentation

pytest.importorskip("highdicom")


@pytest.fixture
def series(tmp_path: Path, write_series: Callable[..., str]) -> Path:
    """An oblique CT series in another order than its positions."""
    axes = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    stored = np.random.default_rng(0).integers(0, 2000, (5, 7, 9)).astype(np.uint16)

    def complete(header: pydicom.Dataset, index: int) -> None:
        header.StudyInstanceUID = "1.2.3.5"
        header.StudyDate, header.StudyTime, header.AccessionNumber, header.StudyID = "", "", "", ""
        header.PatientBirthDate, header.PatientSex, header.ReferringPhysicianName = "", "", ""

    write_series(tmp_path / "series", stored, axes=axes, change=complete)
    return tmp_path / "series"


def test_frames_lie_where_the_mask_lies(series: Path, tmp_path: Path) -> None:
    scan = read_volume(series)
    labels = np.zeros(scan.array.shape[1:], np.uint8)
    labels[1:3, 2:5, 1:4] = 3
    labels[4, 6, 8] = 7
    path = tmp_path / "mask.dcm"
    write_segmentation(scan.with_array(labels), {3: "tumour"}, series, path)
    found = pydicom.dcmread(path)
    assert found.Modality == "SEG"
    assert (found.PatientID, found.StudyInstanceUID) == ("PID-4711", "1.2.3.5")
    assert [str(segment.SegmentLabel) for segment in found.SegmentSequence] == ["tumour", "class 7"]
    assert found.FrameOfReferenceUID == "1.2.3.4"

    again = np.zeros_like(labels)
    shared = found.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    step_y, step_x = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    for frame, group in zip(found.pixel_array, found.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for y, x in np.argwhere(frame):
            point = corner + row * step_x * x + column * step_y * y
            index = scan.geometry.to_index(point[::-1])
            np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
            again[tuple(np.rint(index).astype(int))] = (3, 7)[number - 1]
    np.testing.assert_array_equal(again, labels)


def test_what_cannot_be_a_segmentation_is_refused(series: Path, tmp_path: Path) -> None:
    scan = read_volume(series)
    path = tmp_path / "mask.dcm"
    with pytest.raises(InputError, match="marks nothing"):
        write_segmentation(scan.with_array(np.zeros_like(scan.array, np.uint8)), {}, series, path)
    small = np.ones((4, 7, 9), np.uint8)
    other = type(scan)(small[None], scan.geometry.cropped((1, 0, 0), (4, 7, 9)))
    with pytest.raises(InputError, match="another grid"):
        write_segmentation(other, {}, series, path)
    assert not path.exists()
