"""Settings of masked image modelling: what is hidden, and what reconstructs it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from medssl.config.augmentation import Range, TurnsConfig


class MaskedImageConfig(TurnsConfig):
    """What methods share that hide cells of an image and learn to fill them in."""

    planar: ClassVar = {"aspect": (4 / 3) ** 0.5}

    size: int | None = Field(
        None, ge=8, description="edge of the view, voxels; by default that of the source crop"
    )
    scale: Range = Field(
        (0.67, 1.0), description="volume fraction of the source that the view shows (SparK: 0.67 to 1, in 2D)"
    )
    aspect: float = Field(
        1.2, ge=1, description="largest stretch of an axis of the view (2D: sides up to 4 : 3, as SparK)"
    )
    ratio: float = Field(0.6, ge=0, lt=1, description="share of the cells that is hidden")
    cell: int | None = Field(
        None,
        ge=1,
        description="edge of a hidden cell, voxels; by default the coarsest stride of the encoder "
        "(SparK: 32 with strides up to 32; S3D: 16)",
    )
    decoder: Literal["light", "pyramid"] = Field(
        "light",
        description="light adds the levels one by one while it doubles the grid (SparK) and is left behind; "
        "pyramid is a U-Net decoder (S3D) that is exported, so that fine-tuning can go on with it",
    )
    width: int = Field(
        256,
        ge=64,
        description="channels of the light decoder at the coarsest level, halved at every doubling "
        "(SparK: 768, the default of spark in 2D; otherwise ours)",
    )
    decoder_channels: tuple[int, ...] = Field(
        (12, 24, 48, 64),
        min_length=1,
        description="channels of the pyramid decoder, stride 1 first, one per level of the encoder",
    )
    normalise: bool = Field(
        True, description="bring each target cell to mean 0 and variance 1 (SparK); plain squared error else"
    )
