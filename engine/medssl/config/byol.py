"""Settings of BYOL."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medssl.config.run import RunConfig
from medssl.config.two_views import MomentumConfig, TwoViewsConfig


class ByolConfig(RunConfig):
    """BYOL (Grill et al. 2020): predict what a slower copy of the network makes of the other view."""

    planar: ClassVar = {"views": {"scale": (0.08, 1.0)}}

    views: TwoViewsConfig = Field(TwoViewsConfig(), description="the two crops")
    hidden: int = Field(4096, ge=1, description="hidden width of projection and prediction (BYOL: 4096)")
    dim: int = Field(256, ge=1, description="dimension of projection and prediction (BYOL: 256)")
    momentum: MomentumConfig = Field(
        MomentumConfig(), description="how the target network follows (BYOL: 0.996 to 1)"
    )
