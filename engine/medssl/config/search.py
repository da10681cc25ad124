"""Settings of `medssl search`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from medssl.config.command import CommandConfig
from medssl.config.scan import ScanChoice


class SearchConfig(CommandConfig, ScanChoice):
    """Places in an index that resemble a voxel or a painted region."""

    index: Path = Field(description="index folder, as medssl embed writes it")
    input: Path = Field(description="scan that the query is taken from; it need not be in the index")
    at: tuple[int, ...] | None = Field(None, description="voxel of the query: z,y,x (y,x in an image)")
    region: Path | None = Field(None, description="mask on the input's grid: search for what it covers")
    top: int = Field(10, ge=1, le=1000, description="most hits")
    within: tuple[str, ...] = Field((), description="ids of the volumes to search in; all by default")
    separation: float | None = Field(
        None,
        ge=0,
        description="least distance in mm of two hits in one volume; default two cells of the index",
    )
    encoder: str | None = Field(
        None, description="weights for a scan outside the index; default: of the index"
    )
    out: Path | None = Field(None, description="file for the hits (hits.json)")

    @field_validator("at", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_query(self) -> SearchConfig:
        if (self.at is None) == (self.region is None):
            raise ValueError("give either at (a voxel) or region (a mask)")
        if self.at is not None and len(self.at) not in (2, 3):
            raise ValueError(f"at needs z,y,x or y,x, given {len(self.at)} numbers")
        return self
