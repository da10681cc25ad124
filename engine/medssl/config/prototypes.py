"""Settings of `medssl prototypes`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medssl.config.command import CommandConfig
from medssl.config.scan import ScanChoice


class PrototypesConfig(CommandConfig, ScanChoice):
    """A prototype map as a label volume on the input's grid: 0 is air, 1 .. K are prototypes."""

    encoder: str = Field("default", description="weights: registry name, run folder or file")
    input: Path = Field(description="scan")
    out: Path = Field(description="label volume to write")
    k: int = Field(
        12,
        ge=1,
        le=1000,
        description="prototypes wanted; below the learned number they are merged, above it clusters are made",
    )
    source: Literal["auto", "learned", "k-means"] = Field(
        "auto",
        description="learned prototypes of the weights, k-means on the scan's features, or what tells more",
    )
