"""Settings of randomised synthesis."""

from __future__ import annotations

from pydantic import Field

from medssl.config.augmentation import IntensityConfig, Range, TurnsConfig


class SynthesisConfig(TurnsConfig):
    """Contrast of cells by the label of generated volumes (after Dey et al. 2025; sizes are ours).

    Both views show the whole volume by default: with crops cut and turned independently nothing tells
    at first which cells belong together, and the loss stays where all cells are equal.
    """

    cells_per_crop: int = Field(256, ge=2, description="places sampled per pair of views")
    hidden: int = Field(256, ge=1, description="hidden width of the projection head")
    dim: int = Field(128, ge=1, description="dimension of the projections")
    temperature: float = Field(0.1, gt=0, description="temperature of the contrast")
    global_size: int = Field(48, ge=16, description="edge of the two crops, voxels")
    volume_size: int | None = Field(
        None,
        ge=16,
        description="edge of the generated volumes, voxels (tissues are 4 to 14 wide); None: that of the "
        "largest crop, which then has a voxel for each of theirs",
    )
    global_scale: Range = Field((1.0, 1.0), description="volume fraction of a crop (area in 2D)")
    aspect: float = Field(1.0, ge=1, description="largest stretch of an axis of a crop")
    turn_p: float = Field(
        0.0, ge=0, le=1, description="probability that a crop is mirrored at random, along each axis or not"
    )
    intensity: IntensityConfig = Field(
        IntensityConfig(
            energy_p=0.0,
            gamma_p=0.0,
            linear_p=0.0,
            bias_p=1.0,
            blur_p=1.0,
            blur_range=(0.4, 1.1),
            noise_p=1.0,
        ),
        description="intensity augmentation of every rendering: bias field, blur and noise by default",
    )
