"""Settings of `medssl prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from medssl.config.resume import ResumableConfig
from medssl.config.run import RunConfig


class CacheConfig(RunConfig):
    """How scans become a training cache; two caches with equal settings are interchangeable."""

    dtype: Literal["uint8", "int16", "float16"] = Field(
        "uint8", description="how voxels in [0, 1] are stored"
    )
    spacing_range: tuple[float, float] = Field(
        (0.5, 1.25), description="smallest and largest voxel spacing in mm; axes outside are resampled"
    )
    foreground: float = Field(
        0.05, ge=0, lt=1, description="normalised value above which a voxel is not air; 0 keeps whole scans"
    )

    labels: bool = Field(
        False, description="keep the masks of the data table beside the voxels, for hybrid pre-training"
    )

    @model_validator(mode="after")
    def _check_range(self) -> CacheConfig:
        low, high = self.spacing_range
        if not 0 < low <= high:
            raise ValueError(f"spacing_range needs 0 < low <= high, given {low} {high}")
        return self


class PrepareConfig(ResumableConfig, CacheConfig):
    """Any readable scans -> a normalised, chunked training cache."""

    stored_as = "prepare.yaml"

    data: Path = Field(description="folder of scans, data table (CSV) or one scan")
    out: Path = Field(description="cache folder to make, or to bring up to the data")
    max_mb: float | None = Field(
        None,
        gt=0,
        description="largest size of the cache in MB, with masks and index; large scans are cropped to fit",
    )
    workers: int = Field(0, ge=0, description="processes that read scans; 0 takes one per core, at most 4")

    def cache(self) -> CacheConfig:
        """The part that decides what the cache holds."""
        return CacheConfig(**{name: getattr(self, name) for name in CacheConfig.model_fields})
