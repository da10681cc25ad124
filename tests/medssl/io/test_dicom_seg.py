from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medssl.errors import InputError
from medssl.io import read_volume
from medssl.io.dicom_seg import write_segmentation
from medssl.volume import Geometry

pytest.importorskip("highdicom")

Drawn = Callable[[pydicom.Dataset, Geometry], np.ndarray]


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


def test_frames_lie_where_the_mask_lies(series: Path, drawn_in: Drawn, tmp_path: Path) -> None:
    scan = read_volume(series)
    labels = np.zeros(scan.array.shape[1:], np.uint8)
    labels[1:3, 2:5, 1:4] = 3
    labels[4, 6, 8] = 7
    path = tmp_path / "mask.dcm"
    drawn = np.where(labels == 0, 5, labels)
    drawn[0] = 0
    write_segmentation(scan.with_array(drawn), {3: "tumour", 5: "Background"}, series, path)
    found = pydicom.dcmread(path)
    assert found.Modality == "SEG"
    assert (found.PatientID, found.StudyInstanceUID) == ("PID-4711", "1.2.3.5")
    assert [str(segment.SegmentLabel) for segment in found.SegmentSequence] == ["tumour", "class 7"]
    assert found.FrameOfReferenceUID == "1.2.3.4"

    np.testing.assert_array_equal(np.array([0, 3, 7])[drawn_in(found, scan.geometry)], labels)


def test_what_anonymised_headers_lack_is_made_up_for(
    write_series: Callable[..., str], drawn_in: Drawn, tmp_path: Path
) -> None:
    uids = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    lacking = (*uids, "PatientID", "PatientName", "Modality", "SliceThickness")

    def strip(header: pydicom.Dataset, index: int) -> None:
        for name in lacking:
            delattr(header, name)
        header.SpecificCharacterSet = ("", "ISO 2022 IR 100")[index % 2]

    series = tmp_path / "series"
    write_series(series, np.full((4, 6, 5), 40, np.uint16), change=strip)
    scan = read_volume(series)
    labels = np.zeros(scan.geometry.shape, np.uint8)
    labels[1:3, 2, 1:4] = 1
    written = []
    for path in (tmp_path / "a.dcm", tmp_path / "b.dcm"):
        write_segmentation(scan.with_array(labels), {}, series, path)
        written.append(pydicom.dcmread(path))
    first, second = written
    assert (first.PatientID, first.PatientName, first.StudyDate) == ("", "", "")
    assert first.StudyInstanceUID == second.StudyInstanceUID  # segmentations of a series stay together
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    np.testing.assert_array_equal(drawn_in(first, scan.geometry), labels)


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
