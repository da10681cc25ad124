"""Settings of the masked autoencoder for convolutional networks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medssl.config.masked_image import MaskedImageConfig


class MaeConfig(MaskedImageConfig):
    """MAE with a dense encoder (OpenMind, Wald et al. 2025): hidden voxels are replaced at the input.

    The published training is in docs/published.md.
    """

    ratio: float = Field(0.75, ge=0, lt=1, description="share of the cells that is hidden (published: 0.75)")
    normalise: bool = Field(
        False, description="bring each target cell to mean 0 and variance 1; published: plain squared error"
    )
    fill: Literal["zero", "mean", "token"] = Field(
        "mean",
        description="what stands in hidden voxels: zero, the mean of the seen ones (published: 0 after "
        "z-scoring, the mean of the image) or a learned value per channel",
    )
