"""A mask as a DICOM segmentation object beside the series that it was drawn on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from medssl.errors import InputError, MissingDependencyError
from medssl.io.atomic import replacing
from medssl.io.axes import lps_direction, lps_point, lps_spacing
from medssl.io.dicom import list_dicom, read_dicom
from medssl.io.dicom_headers import UNREADABLE
from medssl.io.dicom_scan import files_below, series_uid
from medssl.volume import Volume

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

_TOLERANCE_MM = 0.1
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
)
_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}


def write_segmentation(
    mask: Volume, names: Mapping[int, str], source: Path, path: Path, *, series: str | None = None
) -> None:
    """Write a DICOM SEG (binary, one segment per class) in exactly the geometry of the mask.

    Patient, study and frame of reference are those of the source; every frame states its own position, and
    refers to the source slice at that place where there is one. What kind of tissue a class is remains open:
    its name is the segment's label, its code the general one for tissue.

    Args:
        mask: (1, z, y, x) whole numbers from 0; 0 and a class called background belong to no segment.
        names: of the values.
        source: folder or file of the series.
        path: the .dcm file.
        series: uid of the series, where the folder holds several.

    Raises:
        MissingDependencyError: highdicom is absent.
        InputError: an empty or 2D mask, a source that is no DICOM series, or another grid than the source's.
    """
    try:
        from highdicom import (  # noqa: PLC0415  optional, 2 s to import
            UID,
            PixelMeasuresSequence,
            PlaneOrientationSequence,
            PlanePositionSequence,
        )
        from highdicom.seg import Segmentation  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError("highdicom", "seg", "DICOM SEG") from error
    classes = [int(value) for value in np.unique(mask.array) if value != 0]
    values = [value for value in classes if names.get(value, "").lower() != "background"]
    if not values or mask.spatial_dims != 3:
        what = "is an image, not a volume" if values else "marks nothing"
        raise InputError(f"{path}: the mask {what}; a DICOM SEG needs a volume with at least one class")
    scan = read_dicom(source, series)
    if not scan.geometry.matches(mask.geometry, _TOLERANCE_MM):
        raise InputError(
            f"{path}: the mask lies on another grid than the series in {source}; give the series that it was "
            "drawn on, or a mask on its grid"
        )
    geometry = mask.geometry
    direction = lps_direction(geometry)
    x, y, z = lps_spacing(geometry)
    labels = np.zeros(mask.array.shape[1:], np.uint8 if len(values) < 256 else np.uint16)
    for number, value in enumerate(values, start=1):
        labels[mask.array[0] == value] = number
    with warnings.catch_warnings(), replacing(path) as temporary:
        warnings.simplefilter("ignore")  # on odd source headers; they would quote the patient
        try:
            made = Segmentation(
                source_images=[_completed(*one, z) for one in enumerate(_instances(source, series))],
                pixel_array=labels,
                segmentation_type="BINARY",
                segment_descriptions=[
                    _segment(number, names.get(value, f"class {value}"))
                    for number, value in enumerate(values, start=1)
                ],
                series_instance_uid=UID(),
                series_number=1000,
                sop_instance_uid=UID(),
                instance_number=1,
                manufacturer="MedSSL",
                manufacturer_model_name="medssl",
                software_versions=_version(),
                device_serial_number="none",
                pixel_measures=PixelMeasuresSequence(
                    pixel_spacing=(y, x), slice_thickness=z, spacing_between_slices=z
                ),
                plane_orientation=PlaneOrientationSequence(
                    "PATIENT", [*direction[:, 0].tolist(), *direction[:, 1].tolist()]
                ),
                plane_positions=[
                    PlanePositionSequence("PATIENT", lps_point(geometry, (slice_, 0, 0)))
                    for slice_ in range(len(labels))
                ],
                series_description="segmentation, not for diagnostic use",
            )
        except UNREADABLE as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{source}: its headers do not allow a DICOM SEG: {reason}") from error
        made.save_as(temporary)


def _instances(source: Path, series: str | None) -> list[Dataset]:
    """Headers of the series, one per file."""
    uid = series or list_dicom(source)[0].uid
    paths = files_below(source) if source.is_dir() else files_below(source.parent)
    found: list[Dataset] = []
    for path in paths:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except UNREADABLE:
            continue  # reading the scan has said how many were damaged
        if series_uid(header) == uid.partition(":")[0]:  # several stacks of a series have one uid
            found.append(header)
    return found


def _completed(number: int, header: Dataset, thickness: float) -> Dataset:
    """The header of slice ``number`` with what the standard asks for and anonymised files often lack."""
    general = {**dict.fromkeys(_MAY_BE_EMPTY, ""), "Modality": "OT", "SliceThickness": thickness}
    for name in general.keys() - {element.keyword for element in header}:
        setattr(header, name, general[name])
    series = series_uid(header)  # identifiers are made from it: segmentations of a series stay together
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        if not header.get(name):
            one = str(number) if name == "SOPInstanceUID" else ""
            setattr(header, name, generate_uid(entropy_srcs=[name, series, one]))
    if not header.get("SOPClassUID"):
        stated = header.file_meta.get("MediaStorageSOPClassUID")
        header.SOPClassUID = stated or _CLASSES.get(header.get("Modality", ""), SecondaryCaptureImageStorage)
    letters = header.get("SpecificCharacterSet")
    if isinstance(letters, str) and letters:  # one by itself must not have the form that is for several
        header.SpecificCharacterSet = letters.replace("ISO 2022 IR", "ISO_IR")
    elif not letters:
        header.pop("SpecificCharacterSet", None)
    for shared in header.get("SharedFunctionalGroupsSequence", ()):
        for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
            if name not in shared:  # a multi-frame file that repeats them for each frame
                setattr(shared, name, header.PerFrameFunctionalGroupsSequence[0].get(name))
    return header


def _segment(number: int, name: str) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence  # noqa: PLC0415
    from highdicom.seg import SegmentDescription  # noqa: PLC0415
    from pydicom.sr.codedict import codes  # noqa: PLC0415

    tissue: Any = codes.SCT.Tissue
    return SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=tissue,
        segmented_property_type=tissue,
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name="medssl", version=_version(), family=codes.DCM.ArtificialIntelligence
        ),
    )


def _version() -> str:
    try:
        return version("napari-medssl")
    except PackageNotFoundError:
        return "unknown"
