"""Settings of `medssl predict`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medssl.config.command import CommandConfig
from medssl.config.scan import ScanChoice


class PredictConfig(CommandConfig, ScanChoice):
    """A scan and a fine-tuned model -> a mask, boxes or classes in the scan's own geometry."""

    model: str = Field(description="run folder of medssl finetune, or the weights file it exported")
    input: Path = Field(description="scan: image file or DICOM series folder")
    out: Path = Field(
        description="mask to write: .nii.gz, .nrrd, .mha, or .png for a 2D image; boxes: .json or .csv; "
        "classes: .json"
    )
    least_score: float = Field(
        0.0, ge=0, le=1, description="boxes below this score are left out, beyond what the detector drops"
    )
    overlap: float = Field(0.25, ge=0, lt=1, description="share of a window that the next one sees again")
    window: int | None = Field(
        None,
        ge=16,
        description="edge of the windows, voxels; default 512 in 2D, in 3D 128 for masks and 96 for boxes",
    )
