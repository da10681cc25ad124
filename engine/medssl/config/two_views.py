"""Settings of two augmented crops of one image: what contrastive methods compare."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medssl.config.augmentation import IntensityConfig, Range, TurnsConfig
from medssl.config.run import RunConfig


class TwoViewsConfig(TurnsConfig):
    """Two crops of equal size; the papers' crops and colours, as far as grey-scale scans allow."""

    planar: ClassVar = {"size": 224, "aspect": (4 / 3) ** 0.5}

    size: int = Field(96, ge=16, description="edge of both crops, voxels (2D: 224)")
    scale: Range = Field(
        (0.25, 1.0), description="volume fraction of a crop (2D: SimCLR and BYOL 0.08 to 1, MoCo v2 0.2 to 1)"
    )
    aspect: float = Field(
        1.2, ge=1, description="largest stretch of an axis of a crop (2D: sides up to 4 : 3)"
    )
    rotation: float = Field(0.0, ge=0, le=180, description="largest random rotation of a crop, degrees")
    intensity: IntensityConfig = Field(IntensityConfig(), description="intensity augmentation of both crops")


class MomentumConfig(RunConfig):
    """An encoder that follows the trained one: target <- m target + (1 - m) online, once per step.

    m rises from ``start`` to ``end`` along half a cosine over the steps of the run (BYOL, section 3.2).
    """

    start: float = Field(0.996, ge=0, le=1, description="momentum at the first step")
    end: float = Field(1.0, ge=0, le=1, description="momentum at the last step")
