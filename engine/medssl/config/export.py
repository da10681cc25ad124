"""Settings of `medssl export`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medssl.config.command import CommandConfig
from medssl.config.scan import ScanChoice


class ExportConfig(CommandConfig, ScanChoice):
    """An image or a mask in other formats, in exactly its own geometry."""

    input: Path = Field(description="image, mask or DICOM series to export")
    out: tuple[Path, ...] = Field(
        min_length=1,
        description="files to write, the format by the ending: .nii, .nii.gz, .nrrd, .mha; of a mask also "
        ".dcm (DICOM SEG) and .csv (a line per class: voxels, size, place)",
    )
    source: Path | None = Field(
        None, description="DICOM series that the mask was drawn on; a DICOM SEG needs its patient and study"
    )
    source_series: str | None = Field(None, description="series UID of the source, where there are several")
    classes: dict[int, str] = Field({}, description="names of the mask values, e.g. 1=liver")
