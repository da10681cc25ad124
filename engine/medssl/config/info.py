"""Settings of `medssl info`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medssl.config.command import CommandConfig
from medssl.config.scan import ScanChoice


class InfoConfig(CommandConfig, ScanChoice):
    """What an image file or a DICOM folder holds and where it lies in the patient."""

    path: Path = Field(
        description="image file, DICOM folder or one file of a series",
        json_schema_extra={"cli": "positional"},
    )
