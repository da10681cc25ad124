"""Settings of `medssl probe`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medssl.config.command import CommandConfig
from medssl.config.scan import ScanChoice


class ProbeConfig(CommandConfig, ScanChoice):
    """Few labelled voxels -> a segmentation of the whole volume."""

    encoder: str = Field("default", description="weights: registry name, run folder or file")
    input: Path = Field(description="scan")
    labels: Path = Field(description="labelled voxels on the input's grid: 0 = unlabelled, 1..C = classes")
    out: Path = Field(description="segmentation to write, in the input's geometry")
    inverse_strength: float = Field(0.1, gt=0, description="C of the L2 penalty; smaller is smoother")
    uncertainty: Path | None = Field(None, description="image of 1 - margin of the probabilities to write")
