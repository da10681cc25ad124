"""Which series the files of a folder belong to, from one pass over their headers."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from medssl.errors import InputError
from medssl.io.dicom_headers import UNREADABLE, Frame, Header, frames_of, read_header

_MOST_FILES = 100_000

NO_UID = "unnamed-"
"""Begins the stand-in for a missing series uid."""

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

    pydicom's remarks on odd values are dropped: they would quote the file, and with it the patient.

    Args:
        paths: files of any kind; those that are not DICOM are counted and passed over.
    """
    found: dict[str, list[Header]] = {}
    unreadable = others = 0
    series = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in paths:
            try:
                header = read_header(path)
                if header is None:
                    others += 1
                else:
                    found.setdefault(series_uid(header.fields), []).append(header)
            except UNREADABLE:
                unreadable += 1
        for uid, everyone in found.items():
            members = _whole(everyone)
            unreadable += len(everyone) - len(members)
            if not members:
                continue
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


def _whole(members: Sequence[Header]) -> Sequence[Header]:
    """The files of a series without those that lost their pixels; all where it is no series of images."""
    whole = [member for member in members if member.has_pixels]
    return whole if whole or any(member.is_image for member in members) else members


def _series(uid: str, members: Sequence[Header]) -> Series:
    first = members[0].fields
    refusal = _refusal(first)
    frames = () if refusal else tuple(frame for member in members for frame in frames_of(member))
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


def series_uid(header: Dataset) -> str:
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
    if "MOSAIC" in [str(part).upper() for part in header.get("ImageType", None) or ()]:
        return "a Siemens mosaic (many slices in one picture)"
    return "" if header.get("Rows") and header.get("Columns") else "no pixels"


def _description(header: Dataset) -> str:
    text = str(header.get("SeriesDescription", "") or "")
    secrets = [str(header.get("PatientID", "") or "")]
    secrets += str(header.get("PatientName", "") or "").replace("^", " ").split()
    for secret in secrets:
        if len(secret) > 1:
            text = text.replace(secret, "***")
    return text
