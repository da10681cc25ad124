"""Settings of SparK."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from medssl.config.masked_image import MaskedImageConfig


class SparkConfig(MaskedImageConfig):
    """SparK (Tian et al. 2023); in 3D, with other values, S3D (Wald et al. 2024).

    The published trainings of both are in docs/published.md.
    """

    planar: ClassVar = {**MaskedImageConfig.planar, "width": 768}

    densify_norm: Literal["batch", "instance", "none"] = Field(
        "batch",
        description="norm of seen cells before hidden ones are filled with a learned token (S3D: instance "
        "without scale)",
    )
    fill: Literal["mean", "zero"] = Field(
        "mean",
        description="what the first convolution and the U-Net decoder see in hidden cells: the mean of the "
        "seen ones (published: 0 in images standardised over the data) or zero",
    )
    rim: bool = Field(
        False,
        description="as published S3D: the image itself is not masked, so the first convolution sees the rim "
        "of hidden cells",
    )
