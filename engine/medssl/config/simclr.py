"""Settings of SimCLR."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medssl.config.run import RunConfig
from medssl.config.two_views import TwoViewsConfig


class SimclrConfig(RunConfig):
    """SimCLR (Chen et al. 2020): two views of an image agree, all other images of the batch are negatives."""

    planar: ClassVar = {"views": {"scale": (0.08, 1.0)}}

    views: TwoViewsConfig = Field(TwoViewsConfig(), description="the two crops")
    hidden: int = Field(2048, ge=1, description="hidden width of the projection head (SimCLR: 2048)")
    dim: int = Field(128, ge=1, description="dimension of the projections (SimCLR: 128)")
    temperature: float = Field(0.1, gt=0, description="temperature of NT-Xent (SimCLR: 0.1)")
    mask_same_volume: bool = Field(
        False, description="crops of one volume are no negatives of each other (the published form has none)"
    )
