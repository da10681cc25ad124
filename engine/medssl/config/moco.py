"""Settings of MoCo v2."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medssl.config.run import RunConfig
from medssl.config.two_views import MomentumConfig, TwoViewsConfig


class MocoConfig(RunConfig):
    """MoCo v2 (Chen et al. 2020): a query matches its key among a queue of earlier keys."""

    planar: ClassVar = {"views": {"scale": (0.2, 1.0)}}

    views: TwoViewsConfig = Field(TwoViewsConfig(), description="the two crops")
    hidden: int = Field(2048, ge=1, description="hidden width of the projection head (MoCo v2: 2048)")
    dim: int = Field(128, ge=1, description="dimension of the embeddings (MoCo: 128)")
    temperature: float = Field(0.2, gt=0, description="temperature of InfoNCE (MoCo v2: 0.2, MoCo: 0.07)")
    queue_length: int = Field(
        65536, ge=1, description="keys in the queue (MoCo: 65536); a multiple of the batch"
    )
    momentum: MomentumConfig = Field(
        MomentumConfig(start=0.999, end=0.999), description="how the key encoder follows (MoCo: 0.999)"
    )
    shuffle_groups: int = Field(
        2,
        ge=1,
        description="keys pass the encoder shuffled, in this many groups with batch statistics of their own, "
        "so that a query cannot find its key by them (MoCo, section 3.3); 1 does not shuffle",
    )

    def too_few_keys(self, batch_size: int, steps: int) -> str:
        """What to change where the queue is not filled before training ends; empty where it is.

        It begins with random directions, which no query is like.

        Args:
            batch_size: scans per step.
            steps: of the whole training.
        """
        if self.queue_length <= batch_size * steps:
            return ""
        return (
            f"the queue of {self.queue_length} keys begins with random ones, which {steps} steps of "
            f"{batch_size} do not all replace; take a queue_length well below {batch_size * steps}"
        )
