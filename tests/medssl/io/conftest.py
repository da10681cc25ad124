"""DICOM series and oblique volumes, made here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from medssl.volume import Geometry, Volume

_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}

WriteSeries = Callable[..., str]


def rotation(spatial_dims: int) -> NDArray[np.float64]:
    """An oblique, right-handed set of directions that swaps no axes and mirrors none."""
    if spatial_dims == 2:
        return np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    a, b, c = 0.35, -0.2, 0.5
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z)


@pytest.fixture
def oblique(rng: np.random.Generator) -> Callable[..., Volume]:
    """Make an asymmetric volume with three spacings and an oblique direction."""

    def make(spatial_dims: int = 3, dtype: Any = np.int16) -> Volume:
        shape = (5, 7, 11)[3 - spatial_dims :]
        geometry = Geometry.from_arrays(
            shape,
            (2.5, 1.25, 0.8)[3 - spatial_dims :],
            (-31.5, 12.25, 77.0)[3 - spatial_dims :],
            rotation(spatial_dims),
        )
        low = 0 if np.dtype(dtype).kind == "u" else -120
        array = rng.integers(low, 200, (1, *shape)).astype(dtype)
        if np.dtype(dtype).kind == "f":
            array += dtype(0.37)
        return Volume(array, geometry)

    return make


def new_file(modality: str = "CT", series: str = "") -> FileDataset:
    """A data set with identifiers (those of a patient included) and no image yet."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _CLASSES[modality]
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID = meta.MediaStorageSOPClassUID
    header.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    header.StudyInstanceUID = generate_uid()
    header.SeriesInstanceUID = series or generate_uid()
    header.FrameOfReferenceUID = "1.2.3.4"
    header.Modality = modality
    header.PatientName = "Sprenger^Adelheid"
    header.PatientID = "PID-4711"
    header.SeriesDescription = "thin Sprenger PID-4711"
    return header


def put_pixels(header: Dataset, pixels: NDArray[Any], bits_stored: int = 16) -> None:
    """Store uncompressed grey pixels (rows, columns) or (frames, rows, columns)."""
    header.Rows, header.Columns = pixels.shape[-2:]
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated = 8 * pixels.dtype.itemsize
    header.BitsStored = bits_stored if pixels.dtype.itemsize == 2 else 8
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    header.PixelData = pixels.tobytes()


@pytest.fixture
def write_series() -> WriteSeries:
    """Write a series whose names, instance numbers and folder order say nothing about positions."""

    def write(
        folder: Path,
        stored: NDArray[Any],
        *,
        modality: str = "CT",
        offsets: Sequence[float] | None = None,
        pixel_spacing: tuple[float, float] = (1.25, 0.8),
        origin: Sequence[float] = (-31.5, 12.25, 77.0),
        axes: NDArray[np.float64] | None = None,
        drift: Sequence[Sequence[float]] | None = None,
        rescale: Sequence[tuple[float, float]] | None = ((1, -1024),),
        change: Callable[[Dataset, int], None] | None = None,
        series: str = "",
        prefix: str = "IM",
    ) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        uid = series or generate_uid()
        columns = np.eye(3) if axes is None else axes
        places = np.arange(len(stored)) * 2.5 if offsets is None else np.asarray(offsets)
        order = np.random.default_rng(1).permutation(len(stored))
        for index, pixels in enumerate(stored):
            header = new_file(modality, uid)
            shift = (0.0, 0.0) if drift is None else drift[index]
            position = np.asarray(origin) + columns[:, 2] * places[index]
            position = position + columns[:, 0] * shift[0] + columns[:, 1] * shift[1]
            header.ImagePositionPatient = [f"{value:.10g}" for value in position]
            header.ImageOrientationPatient = [f"{value:.10g}" for value in columns[:, :2].T.ravel()]
            header.PixelSpacing = list(pixel_spacing)
            header.SliceThickness = 2.5
            header.InstanceNumber = len(stored) - index  # reversed on purpose
            if rescale:
                slope, intercept = rescale[index % len(rescale)]
                header.RescaleSlope, header.RescaleIntercept = slope, intercept
            put_pixels(header, pixels)
            if change is not None:
                change(header, index)
            header.save_as(folder / f"{prefix}{order[index]:04d}", enforce_file_format=True)
        return uid

    return write


@pytest.fixture
def write_enhanced() -> Callable[..., None]:
    """Write one multi-frame MR file: frames in the order given, each with its own position and slope."""

    def write(
        path: Path, stored: NDArray[Any], positions: Sequence[Sequence[float]], slopes: Sequence[float]
    ) -> None:
        header = new_file("MR")
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
        header.NumberOfFrames = len(stored)
        shared = Dataset()
        shared.PlaneOrientationSequence = [Dataset()]
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        shared.PixelMeasuresSequence = [Dataset()]
        shared.PixelMeasuresSequence[0].PixelSpacing = [1.25, 0.8]
        shared.PixelMeasuresSequence[0].SliceThickness = 3
        header.SharedFunctionalGroupsSequence = [shared]
        groups = []
        for position, slope in zip(positions, slopes, strict=True):
            group = Dataset()
            group.PlanePositionSequence = [Dataset()]
            group.PlanePositionSequence[0].ImagePositionPatient = list(position)
            group.PixelValueTransformationSequence = [Dataset()]
            group.PixelValueTransformationSequence[0].RescaleSlope = slope
            group.PixelValueTransformationSequence[0].RescaleIntercept = 0
            groups.append(group)
        header.PerFrameFunctionalGroupsSequence = groups
        put_pixels(header, stored)
        header.save_as(path, enforce_file_format=True)

    return write


@pytest.fixture
def drawn_in() -> Callable[[Dataset, Geometry], NDArray[np.int_]]:
    """The voxels of a grid that a DICOM SEG marks, by the positions of its frames: segment numbers."""

    def drawn(found: Dataset, geometry: Geometry) -> NDArray[np.int_]:
        labels = np.zeros(geometry.shape, int)
        shared = found.SharedFunctionalGroupsSequence[0]
        row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(
            2, 3
        )
        step_y, step_x = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
        frames = found.pixel_array.reshape(-1, found.Rows, found.Columns)
        for frame, group in zip(frames, found.PerFrameFunctionalGroupsSequence, strict=True):
            corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
            segment = (
                group if "SegmentIdentificationSequence" in group else shared
            ).SegmentIdentificationSequence
            for y, x in np.argwhere(frame):
                point = corner + row * step_x * x + column * step_y * y
                index = geometry.to_index(point[::-1])
                np.testing.assert_allclose(index, np.rint(index), atol=2e-2)
                labels[tuple(np.rint(index).astype(int))] = segment[0].ReferencedSegmentNumber
        return labels

    return drawn
