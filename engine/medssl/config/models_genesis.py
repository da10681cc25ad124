"""Settings of Models Genesis."""

from __future__ import annotations

from pydantic import Field

from medssl.config.run import RunConfig


class ModelsGenesisConfig(RunConfig):
    """Models Genesis (Zhou et al. 2021): undo four corruptions; probabilities of the published configuration.

    The published training is in docs/published.md.
    """

    shape: tuple[int, ...] | None = Field(
        None,
        description="voxels per axis (z, y, x) of the cube that is corrupted, cut out of the source crop at "
        "random; the whole crop without it (published: 32 64 64)",
    )
    flip_p: float = Field(
        0.4, ge=0, le=1, description="probability to go on flipping a random axis, up to 3 times"
    )
    shuffle_p: float = Field(0.5, ge=0, le=1, description="probability of local shuffling")
    windows: int | None = Field(
        None,
        ge=1,
        description="windows of local shuffling; by default 10000 in 3D (published) and, where the paper is "
        "silent, 10000 per 224 x 224 pixels in 2D",
    )
    curve_p: float = Field(0.9, ge=0, le=1, description="probability of a Bezier curve over the intensities")
    decreasing_p: float = Field(0.5, ge=0, le=1, description="share of the curves that invert the contrast")
    paint_p: float = Field(0.9, ge=0, le=1, description="probability of painting")
    inner_p: float = Field(0.2, ge=0, le=1, description="share of in-painting; out-painting otherwise")
    compatible: bool = Field(
        False,
        description="as the published code: flips leave z out, and the method in evaluation mode goes on "
        "with the batch's statistics; otherwise flips along every axis, and running statistics. Exported "
        "weights have running statistics in both",
    )
    decoder_channels: tuple[int, ...] = Field(
        (12, 24, 48, 64),
        min_length=1,
        description="channels of the decoder over any encoder but genesis, stride 1 first, one per level; "
        "the last one stands for all that are deeper",
    )
