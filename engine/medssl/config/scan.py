"""Which image of a scan that holds several."""

from __future__ import annotations

from pydantic import Field

from medssl.config.run import RunConfig


class ScanChoice(RunConfig):
    """What is read of the one scan of a command."""

    series: str | None = Field(
        None, description="uid of a DICOM series, where the folder holds several; without it the largest"
    )
    frame: int = Field(0, ge=0, description="which volume of a 4D image, from 0")
