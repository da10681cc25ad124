"""Settings of the hybrid self-supervised and supervised objective."""

from __future__ import annotations

from pydantic import Field

from medssl.config.augmentation import IntensityConfig, Range, TurnsConfig


class HybridConfig(TurnsConfig):
    """L = class_weight L_class + dense_weight L_dense + balance L_method (Ghesu et al. 2022).

    The abstract names the form; weights, schedule and heads are ours. Both weights at 0 leave the method
    alone. Labels come from the data table (columns class and label) through the prepared cache.
    """

    class_weight: float = Field(0.0, ge=0, description="weight of the loss of the classes of the volumes")
    dense_weight: float = Field(
        0.0, ge=0, description="weight of the loss of the masks; needs a cache prepared with --labels"
    )
    balance: float = Field(
        1.0, ge=0, description="weight of the self-supervised loss; search 0.1, 0.3, 1, 3 around it"
    )
    decay: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the steps, at the end, in which the balance falls linearly to 0 (0.2 is usual)",
    )
    size: int | None = Field(
        None,
        ge=16,
        description="edge of the one crop that the labelled branch sees, voxels; by default that of the "
        "global view of the method",
    )
    scale: Range = Field((0.25, 1.0), description="volume fraction of that crop")
    aspect: float = Field(1.2, ge=1, description="largest stretch of an axis of that crop")
    intensity: IntensityConfig = Field(IntensityConfig(), description="intensity augmentation of that crop")

    @property
    def is_on(self) -> bool:
        """Whether there is anything supervised."""
        return self.class_weight > 0 or self.dense_weight > 0
