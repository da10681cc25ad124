"""Settings of `medssl info`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medssl.config.command import CommandConfig


class InfoConfig(CommandConfig):
    """What an image file or a DICOM folder holds and where it lies in the patient."""

    path: Path = Field(
        description="image file, DICOM folder or one file of a series",
        json_schema_extra={"cli": "positional"},
    )
    series: str | None = Field(None, description="uid of a DICOM series; without it the largest is shown")
    frame: int = Field(0, ge=0, description="which volume of a 4D image, from 0")
