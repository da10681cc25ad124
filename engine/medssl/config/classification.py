"""Settings of the classification task."""

from __future__ import annotations

from pydantic import Field

from medssl.config.run import RunConfig


class ClassificationConfig(RunConfig):
    """Size of the input, loss, augmentation and intervals of a classifier."""

    size: int | None = Field(
        None,
        ge=16,
        description="longest edge that the encoder sees, voxels; larger images are shrunk to it; default 224 "
        "in 2D (Wolf et al. 2023) and 96 in 3D",
    )
    multi_label: bool | None = Field(
        None,
        description="several classes may be true at once (binary cross-entropy per class); default: where a "
        "cell of the table holds several",
    )
    inverse_strength: float = Field(
        0.1, gt=0, description="C of the L2 penalty of the linear probe that training starts from"
    )
    intensity: bool = Field(True, description="random gamma, contrast, blur and noise")
    flip: bool = Field(False, description="random flips; only where left and right mean the same")
    bootstrap: int = Field(
        1000, ge=10, description="resamples of the subjects behind the interval of the AUC"
    )
