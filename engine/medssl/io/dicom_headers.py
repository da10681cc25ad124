"""The header of a DICOM file: what each of its frames shows, where it lies, where its pixels are."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    MediaStorageDirectoryStorage,
    PositronEmissionTomographyImageStorage,
)

from medssl.io.formats import looks_like_dicom

Vector3 = tuple[float, float, float]

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

_TAGS = [
    Tag(name)
    for name in (
        "BitsAllocated",
        "BitsStored",
        "Columns",
        "FrameOfReferenceUID",
        "HighBit",
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
        "PhotometricInterpretation",
        "PixelRepresentation",
        "PixelSpacing",
        "RescaleIntercept",
        "RescaleSlope",
        "Rows",
        "SOPClassUID",
        "SOPInstanceUID",
        "SamplesPerPixel",
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
_PIXEL_DATA = {"<": b"\xe0\x7f\x10\x00", ">": b"\x7f\xe0\x00\x10"}
_ITEM, _ITEMS_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_BYTE_ORDER = {ExplicitVRLittleEndian: "<", ImplicitVRLittleEndian: "<", ExplicitVRBigEndian: ">"}
_NATIVE_BITS = (8, 16)
_JPEG = {*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes}
_RESCALED_BY_ITK = (None, CTImageStorage, PositronEmissionTomographyImageStorage)


@dataclass(frozen=True)
class NativePixels:
    """Uncompressed grey pixels, which can be read without parsing the file once more.

    Args:
        offset: byte of the first pixel of the first frame.
        dtype: numpy type of a pixel as stored.
        unused_bits: bits above the stored ones, which may hold anything.
    """

    offset: int
    dtype: np.dtype[Any]
    unused_bits: int


@dataclass(frozen=True)
class Header:
    """A file, its fields without pixels, and how its pixels are stored.

    Args:
        path: the file.
        fields: what stands before the pixels.
        native: where the pixels lie, None where they are compressed.
        is_jpeg: whether they are one complete grey picture of the JPEG family.
        has_pixels: whether it is a picture and something follows the fields.
    """

    path: Path
    fields: Dataset
    native: NativePixels | None
    is_jpeg: bool
    has_pixels: bool

    @property
    def is_image(self) -> bool:
        """Whether the file was made as an image, be its pixels lost or not."""
        return "Image Storage" in UID(str(self.fields.get("SOPClassUID", ""))).name


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
        slope: rescale slope, 1 where not stated.
        intercept: rescale intercept.
        order: sorts pictures of one position: time, then instance number, then frame.
        native: where the pixels lie, None where they are compressed.
        states_rescale: whether the file says how stored values become measured ones.
        itk_type: what the type of ITK's decoded and rescaled pixels depends on; None where ITK cannot be
            asked.
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
    native: NativePixels | None
    states_rescale: bool
    itk_type: tuple[float, ...] | None


def read_header(path: Path) -> Header | None:
    """The fields that matter, without pixels; None where the file is not DICOM, or a DICOMDIR.

    Raises:
        UNREADABLE: the file begins like DICOM and is damaged.
    """
    with path.open("rb") as handle:
        if not looks_like_dicom(handle.read(132)):
            return None
        handle.seek(0)
        fields = pydicom.dcmread(handle, stop_before_pixels=True, force=True, specific_tags=_TAGS)
        if fields.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return None
        if "SOPClassUID" not in fields and "Rows" not in fields:
            raise InvalidDicomError("neither an image nor any other known object")
        is_picture = bool(fields.get("Rows") and fields.get("Columns"))
        if not is_picture or _is_at_end(fields, handle):
            return Header(path, fields, None, False, has_pixels=False)
        if fields.get("SamplesPerPixel") != 1 or fields.get("PhotometricInterpretation") != "MONOCHROME2":
            return Header(path, fields, None, False, has_pixels=True)
        native = _native_pixels(fields, handle)
        return Header(path, fields, native, _is_jpeg(fields, handle), has_pixels=True)


def _is_at_end(fields: FileDataset, handle: BinaryIO) -> bool:
    """Whether the file ends with the fields, where its pixels should begin."""
    if fields.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return False  # pydicom has unpacked the whole file
    place = handle.tell()
    rest = handle.read(1)
    handle.seek(place)
    return not rest


def _is_jpeg(fields: FileDataset, handle: BinaryIO) -> bool:
    """Whether one complete JPEG picture follows: items up to the closing delimiter.

    ITK decodes what is there of a truncated picture without an error, so it must not see one.
    """
    if fields.file_meta.get("TransferSyntaxUID") not in _JPEG or (fields.get("NumberOfFrames") or 1) != 1:
        return False
    if handle.read(12)[:4] != _PIXEL_DATA["<"]:
        return False
    while len(item := handle.read(8)) == 8:
        tag, length = item[:4], struct.unpack("<I", item[4:])[0]
        if tag == _ITEMS_END:
            return True
        if tag != _ITEM:
            return False
        handle.seek(length, 1)
    return False


def _native_pixels(fields: FileDataset, handle: BinaryIO) -> NativePixels | None:
    """Where uncompressed grey pixels begin: pydicom has stopped in front of them."""
    order = _BYTE_ORDER.get(fields.file_meta.get("TransferSyntaxUID"))
    allocated, stored = fields.get("BitsAllocated"), fields.get("BitsStored")
    if order is None or allocated not in _NATIVE_BITS or fields.get("HighBit") != stored - 1:
        return None
    explicit = fields.file_meta.TransferSyntaxUID != ImplicitVRLittleEndian
    element = handle.read(12)
    if element[:4] != _PIXEL_DATA[order]:
        return None
    kind = "i" if fields.get("PixelRepresentation") else "u"
    offset = handle.tell() - (0 if explicit else 4)
    return NativePixels(offset, np.dtype(f"{order}{kind}{allocated // 8}"), allocated - stored)


def frames_of(header: Header) -> Iterator[Frame]:
    """The pictures of a file, one for a classic file."""
    fields = header.fields
    shared = _first(fields.get("SharedFunctionalGroupsSequence"))
    groups = fields.get("PerFrameFunctionalGroupsSequence") or [None]
    number = float(fields.get("InstanceNumber") or 0)
    instance = str(fields.get("SOPInstanceUID") or header.path)
    for index in range(int(fields.get("NumberOfFrames") or 1)):
        value = _Lookup(fields, groups[min(index, len(groups) - 1)], shared)
        position = _numbers(value("ImagePositionPatient", "PlanePositionSequence"), 3)
        spacing = _numbers(value("PixelSpacing", "PixelMeasuresSequence"), 2)
        spacing = spacing or _numbers(fields.get("ImagerPixelSpacing"), 2)
        thickness = value("SpacingBetweenSlices", "PixelMeasuresSequence")
        thickness = thickness or value("SliceThickness", "PixelMeasuresSequence")
        slope = value("RescaleSlope", "PixelValueTransformationSequence")
        intercept = value("RescaleIntercept", "PixelValueTransformationSequence")
        time = value("TemporalPositionIndex", "FrameContentSequence")
        time = fields.get("TemporalPositionIdentifier") if time is None else time
        states_rescale = slope not in (None, "")
        slope = 1.0 if slope in (None, "") else float(slope)
        intercept = 0.0 if intercept in (None, "") else float(intercept)
        # GDCM leaves the rescale of MR aside, which is ours to apply.
        itk_rescales = (slope, intercept) == (1, 0) or (fields.get("SOPClassUID") or None) in _RESCALED_BY_ITK
        itk_type = (slope, intercept, fields.get("BitsStored") or 0, fields.get("PixelRepresentation") or 0)
        yield Frame(
            path=header.path,
            index=index,
            instance=instance,
            rows=int(fields.Rows),
            columns=int(fields.Columns),
            position=(position[0], position[1], position[2]) if position else None,
            orientation=_numbers(value("ImageOrientationPatient", "PlaneOrientationSequence"), 6),
            pixel_spacing=(spacing[0], spacing[1]) if spacing else None,
            thickness=abs(float(thickness)) or None if thickness else None,
            slope=slope,
            intercept=intercept,
            order=(float(time or 0), number, float(index)),
            native=header.native,
            states_rescale=states_rescale,
            itk_type=itk_type if header.is_jpeg and itk_rescales else None,
        )


@dataclass(frozen=True)
class _Lookup:
    """A field of one frame: of the frame itself, of all frames, or of the file, in this order."""

    fields: Dataset
    own: Dataset | None
    shared: Dataset | None

    def __call__(self, name: str, sequence: str) -> Any:
        for group in (self.own, self.shared):
            item = None if group is None else _first(group.get(sequence))
            if item is not None and item.get(name) is not None:
                return item.get(name)
        return self.fields.get(name)


def _first(sequence: Any) -> Dataset | None:
    return sequence[0] if sequence else None


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """``count`` finite numbers, None where the field is absent, empty or of another length."""
    if value is None or isinstance(value, str) or len(value) != count:
        return None
    numbers = tuple(float(part) for part in value)
    return numbers if all(abs(number) < float("inf") for number in numbers) else None
