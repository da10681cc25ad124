"""Settings of `medssl pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from medssl.config.command import CommandConfig
from medssl.config.hybrid import HybridConfig
from medssl.config.prepare import CacheConfig
from medssl.config.run import RunConfig
from medssl.config.synthesis import SynthesisConfig
from medssl.config.training import TrainingConfig


class SamplingConfig(RunConfig):
    """Which crops a training step sees."""

    crop: int | None = Field(
        None,
        ge=8,
        description="edge of a source crop in voxels; methods cut their views out of it; by default that of "
        "the largest view, so that views are not magnified beyond what they leave out, at least 64 (2D: 224)",
    )
    zoom: tuple[float, float] = Field(
        (0.8, 1.25), description="smallest and largest factor on the box that is read and resized to the crop"
    )
    splits: tuple[str, ...] = Field(
        ("train", "unlabelled", ""), description="splits of the data table that are trained on"
    )
    family: Literal["group", "task", "modality", "subject"] | None = Field(
        None,
        description="column of the data table whose values are drawn equally often; by default task for "
        "hssl, modality for lvm-med and for swav with prototypes of each modality, else group",
    )
    together: int | None = Field(
        None,
        ge=1,
        description="samples of one family drawn at a time; by default 2 for hssl with negatives same_task, "
        "which needs another image of the task, else 1",
    )
    balance: float = Field(
        1.0,
        ge=0,
        le=1,
        description="1 draws every family equally often, 0 every volume; between: a compromise",
    )
    foreground: float = Field(
        0.1,
        ge=0,
        le=1,
        description="a crop with a smaller share of non-air voxels is drawn again, 4 times at most",
    )
    padding: Literal["zero", "edge", "reflect"] = Field(
        "zero", description="what surrounds a volume smaller than the crop"
    )
    workers: int = Field(1, ge=0, description="threads that read ahead; 0 reads between the steps")
    prefetch: int = Field(2, ge=1, description="batches read ahead per thread")


class PretrainConfig(CommandConfig):
    """Pre-train an encoder on unlabelled scans."""

    method: str = Field(description="method, for example swav", json_schema_extra={"cli": "positional"})
    data: Path | None = Field(
        None,
        description="prepared cache, list of caches (.caches), data table (CSV) or folder of scans; needed "
        "by all methods but synthesis, which learns from generated volumes",
    )
    out: Path = Field(description="run folder to make")
    dims: Literal[2, 3] = Field(3, description="2 for images and slices, 3 for volumes")
    encoder: str = Field("small", description="encoder: tiny, small, base, genesis, resnet50 or resenc-l")
    padding: Literal["replicate", "zeros"] = Field(
        "replicate",
        description="what tiny, small and base see beyond the border of a scan: its last cell goes on, or "
        "zeros, by which cells learn how far the border is",
    )
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability that the last residual branch of resnet50 or resenc-l is left out while "
        "training, falling to 0 at the first one (SparK: 0.05)",
    )
    steps: int | None = Field(None, ge=1, description="optimiser steps, in place of training.steps")
    batch_size: int | None = Field(
        None, ge=1, description="crops per step over all processes, in place of training.batch_size"
    )
    init: str | None = Field(None, description="start from these weights: registry name, run folder or file")
    config: Path | None = Field(None, description="YAML file with any of these settings; options win over it")
    resume: Path | None = Field(None, description="run folder to continue; its settings are taken from there")
    settings: dict[str, Any] = Field({}, description="settings of the method, see medssl.config.<method>")
    generated: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the batches that are generated volumes, learned by randomised synthesis "
        "beside the method",
    )
    synthesis: SynthesisConfig = Field(SynthesisConfig(), description="that synthesis")
    hybrid: HybridConfig = Field(HybridConfig(), description="supervised losses beside the method")
    training: TrainingConfig = Field(TrainingConfig(), description="the training loop")
    sampling: SamplingConfig = Field(SamplingConfig(), description="the crops")
    cache: CacheConfig = Field(
        CacheConfig(), description="how scans are prepared, where data is no prepared cache"
    )

    @model_validator(mode="after")
    def _needs_scans(self) -> Self:
        if self.data is None and self.method != "synthesis":
            raise ValueError("--data: is needed; synthesis alone learns without scans")
        return self

    def loop(self) -> TrainingConfig:
        """Training settings with the short options put in."""
        short = {"steps": self.steps, "batch_size": self.batch_size}
        return self.training.model_copy(
            update={name: value for name, value in short.items() if value is not None}
        )
