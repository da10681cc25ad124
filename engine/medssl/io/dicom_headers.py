"""One pass over the headers of DICOM files: what each frame shows and where it lies."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag

from medssl.errors import InputError
from medssl.io.formats import looks_like_dicom

Vector3 = tuple[float, float, float]

_MOST_FILES = 100_000

NO_UID = "unnamed-"
"""Begins the stand-in for a missing series uid."""
UNREADABLE = (
    InvalidDicomError,
    AttributeError,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom raises for a damaged file."""

_REFUSED = {
    "RTSTRUCT": "contours (RTSTRUCT)",
    "RTPLAN": "a treatment plan (RTPLAN)",
    "RTDOSE": "a dose distribution (RTDOSE)",
    "RTRECORD": "a treatment record (RTRECORD)",
    "SEG": "a segmentation (SEG)",
    "SR": "a report (SR)",
    "KO": "a key object note (KO)",
    "PR": "a presentation state (PR)",
    "DOC": "a document (DOC)",
    "REG": "a registration (REG)",
    "FID": "fiducials (FID)",
    "RWV": "a real-world value map (RWV)",
    "ECG": "a waveform (ECG)",
}
_REFUSED_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.481.2": "RTDOSE",
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
    "1.2.840.10008.5.1.4.1.1.481.5": "RTPLAN",
    "1.2.840.10008.5.1.4.1.1.481.8": "RTPLAN",
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.1": "REG",
    "1.2.840.10008.5.1.4.1.1.66.3": "REG",
    "1.2.840.10008.5.1.4.1.1.88.59": "KO",
    "1.2.840.10008.5.1.4.1.1.104.1": "DOC",
}

_TAGS = [
    Tag(name)
    for name in (
        "Columns",
        "FrameOfReferenceUID",
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "ImageType",
        "ImagerPixelSpacing",
        "InstanceNumber",
        "Modality",
        "NumberOfFrames",
        "PatientID",
        "PatientName",
        "PerFrameFunctionalGroupsSequence",
        "PixelSpacing",
        "RescaleIntercept",
        "RescaleSlope",
        "Rows",
        "SOPClassUID",
        "SOPInstanceUID",
        "SeriesDescription",
        "SeriesInstanceUID",
        "SeriesNumber",
        "SharedFunctionalGroupsSequence",
        "SliceThickness",
        "SpacingBetweenSlices",
        "StudyInstanceUID",
        "TemporalPositionIdentifier",
        "Units",
    )
]


@dataclass(frozen=True)
class Frame:
    """One picture of a series: a classic file, or one frame of a multi-frame file.

    Args:
        path: the file.
        index: number of the frame within the file.
        instance: SOPInstanceUID, equal for copies of one file.
        rows: pixels per column.
        columns: pixels per row.
        position: LPS mm (x, y, z) of the first pixel's centre, None where not stated.
        orientation: LPS direction along a row and along a column, six numbers, None where not stated.
        pixel_spacing: mm between rows and between columns, None where not stated.
        thickness: mm between slices as stated, else slice thickness, None where neither is.
        slope: rescale slope.
        intercept: rescale intercept.
        order: sorts pictures of one position: time, then instance number, then frame.
    """

    path: Path
    index: int
    instance: str
    rows: int
    columns: int
    position: Vector3 | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, float] | None
    thickness: float | None
    slope: float
    intercept: float
    order: tuple[float, ...]


@dataclass(frozen=True)
class Series:
    """All files of one SeriesInstanceUID, or what speaks against reading them.

    Args:
        uid: SeriesInstanceUID.
        modality: as stated, empty where not.
        description: SeriesDescription without the patient's name and ID.
        files: number of files.
        frames: pictures, in no order.
        frame_of_reference_uid: of the first file.
        units: of the values of a PET series.
        refusal: what the files hold instead of an image; empty for an image.
    """

    uid: str
    modality: str
    description: str
    files: int
    frames: tuple[Frame, ...]
    frame_of_reference_uid: str = ""
    units: str = ""
    refusal: str = ""


@dataclass(frozen=True)
class Scan:
    """What a folder holds: its series, and how many files began like DICOM but could not be read."""

    series: tuple[Series, ...]
    unreadable: int
    others: int


def scan(paths: Sequence[Path]) -> Scan:
    """Read the headers of files and sort them into series; pixels stay on disk.

    Args:
        paths: files of any kind; those that are not DICOM are counted and passed over.
    """
    found: dict[str, list[tuple[Path, Dataset]]] = {}
    unreadable = others = 0
    for path in paths:
        try:
            with path.open("rb") as handle:
                if not looks_like_dicom(handle.read(132)):
                    others += 1
                    continue
            header = read_header(path)
            uid = _uid(header)
        except UNREADABLE:
            unreadable += 1
            continue
        found.setdefault(uid, []).append((path, header))
    series = []
    for uid, members in found.items():
        try:
            series.append(_series(uid, members))
        except UNREADABLE:
            unreadable += len(members)
    return Scan(tuple(series), unreadable, others)


def files_below(folder: Path) -> list[Path]:
    """All visible files in a folder and its sub-folders, in a fixed order.

    Raises:
        InputError: so many files that this cannot be one study.
    """
    paths: list[Path] = []
    for current, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(current, name) for name in sorted(names) if not name.startswith(".")]
        if len(paths) > _MOST_FILES:
            raise InputError(f"{folder}: holds more than {_MOST_FILES} files: name the folder of one study")
    return paths


def read_header(path: Path) -> Dataset:
    """The header fields that matter, without pixels; pydicom's remarks on odd values are dropped.

    They would quote the file, and with it the patient.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)


def _series(uid: str, members: Sequence[tuple[Path, Dataset]]) -> Series:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = members[0][1]
        refusal = next((text for _, header in members if (text := _refusal(header))), "")
        frames = (
            () if refusal else tuple(frame for path, header in members for frame in _frames(path, header))
        )
        return Series(
            uid=uid,
            modality=str(first.get("Modality", "") or ""),
            description=_description(first),
            files=len(members),
            frames=frames,
            frame_of_reference_uid=str(first.get("FrameOfReferenceUID", "") or ""),
            units=str(first.get("Units", "") or ""),
            refusal=refusal,
        )


def _uid(header: Dataset) -> str:
    """The series uid; for files that lost it, a stand-in made from what else tells series apart."""
    uid = str(header.get("SeriesInstanceUID", "") or "")
    if uid:
        return uid
    rest = [str(header.get(name, "")) for name in ("StudyInstanceUID", "SeriesNumber", "FrameOfReferenceUID")]
    return f"{NO_UID}{zlib.crc32('|'.join(rest).encode()):08x}"


def _refusal(header: Dataset) -> str:
    """What a file holds when it is no image; empty for an image."""
    kind = _REFUSED_CLASSES.get(str(header.get("SOPClassUID", "")), str(header.get("Modality", "") or ""))
    if kind in _REFUSED:
        return _REFUSED[kind]
    if not header.get("Rows") or not header.get("Columns"):
        return "no pixels"
    if "MOSAIC" in [str(part).upper() for part in header.get("ImageType", None) or ()]:
        return "a Siemens mosaic (many slices in one picture)"
    return ""


def _description(header: Dataset) -> str:
    text = str(header.get("SeriesDescription", "") or "")
    secrets = [str(header.get("PatientID", "") or "")]
    secrets += str(header.get("PatientName", "") or "").replace("^", " ").split()
    for secret in secrets:
        if len(secret) > 1:
            text = text.replace(secret, "***")
    return text


def _frames(path: Path, header: Dataset) -> Iterator[Frame]:
    shared = _first(header.get("SharedFunctionalGroupsSequence")) or Dataset()
    groups = header.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    count = int(header.get("NumberOfFrames", 1) or 1)
    for index in range(count):
        group = groups[min(index, len(groups) - 1)]

        def value(sequence: str, name: str, group: Dataset = group) -> Any:
            """A field of the frame, of all frames, or of the file, in this order."""
            for functional in (group, shared):
                item = _first(functional.get(sequence))
                if item is not None and item.get(name) is not None:
                    return item.get(name)
            return header.get(name)

        position = _numbers(value("PlanePositionSequence", "ImagePositionPatient"), 3)
        spacing = _numbers(value("PixelMeasuresSequence", "PixelSpacing"), 2)
        spacing = spacing or _numbers(header.get("ImagerPixelSpacing"), 2)
        thickness = value("PixelMeasuresSequence", "SpacingBetweenSlices")
        thickness = thickness or value("PixelMeasuresSequence", "SliceThickness")
        slope = value("PixelValueTransformationSequence", "RescaleSlope")
        intercept = value("PixelValueTransformationSequence", "RescaleIntercept")
        time = value("FrameContentSequence", "TemporalPositionIndex")
        time = header.get("TemporalPositionIdentifier") if time is None else time
        yield Frame(
            path=path,
            index=index,
            instance=str(header.get("SOPInstanceUID", "") or path),
            rows=int(header.Rows),
            columns=int(header.Columns),
            position=(position[0], position[1], position[2]) if position else None,
            orientation=_numbers(value("PlaneOrientationSequence", "ImageOrientationPatient"), 6),
            pixel_spacing=(spacing[0], spacing[1]) if spacing else None,
            thickness=abs(float(thickness)) or None if thickness is not None else None,
            slope=1.0 if slope in (None, "") else float(slope),
            intercept=0.0 if intercept in (None, "") else float(intercept),
            order=(float(time or 0), float(header.get("InstanceNumber", 0) or 0), float(index)),
        )


def _first(sequence: Any) -> Dataset | None:
    return sequence[0] if sequence else None


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """``count`` finite numbers, None where the field is absent, empty or of another length."""
    if value is None or isinstance(value, str) or len(value) != count:
        return None
    numbers = tuple(float(part) for part in value)
    return numbers if np.isfinite(numbers).all() else None
