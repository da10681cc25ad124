"""Settings of `medssl embed`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medssl.config.resume import ResumableConfig


class EmbedConfig(ResumableConfig):
    """Patch features of one volume or a cohort into an index."""

    stored_as = "embed.yaml"

    encoder: str = Field("default", description="weights: registry name, run folder or file")
    data: Path = Field(description="scan, folder of scans or data table (CSV)")
    out: Path = Field(description="index folder to make or to extend")
    max_cells: int = Field(50_000, ge=1, description="most indexed cells of one volume; more are drawn from")
