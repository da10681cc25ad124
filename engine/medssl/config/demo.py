"""Settings of `medssl demo`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medssl.config.resume import ResumableConfig
from medssl.config.scan import ScanChoice


class DemoConfig(ResumableConfig, ScanChoice):
    """The whole road on one scan: prototypes, search, a few labels, probe, fine-tuning, boxes, export."""

    stored_as = "demo.yaml"

    input: Path | None = Field(None, description="scan; default: the MNI152 average brain inside nilearn")
    out: Path = Field(
        Path("medssl-demo"),
        description="folder for the results; those of an earlier demo are replaced, "
        "but for a project that someone worked in",
    )
    resume: Path | None = Field(
        None, description="folder of an interrupted demo: it begins anew with the settings it had"
    )
    headless: bool = Field(False, description="no window: render under a virtual screen, save a screenshot")
    encoder: str = Field("default", description="weights: registry name, run folder or file")
    k: int = Field(12, ge=2, le=255, description="prototypes in the map")
    strokes: int = Field(4, ge=1, le=100, description="short scribbles per class")
    steps: int | None = Field(None, ge=1, description="steps of fine-tuning; default: those of a brief run")
