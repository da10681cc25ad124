"""Settings of the segmentation task."""

from __future__ import annotations

from pydantic import Field

from medssl.config.run import RunConfig


class SegmentationConfig(RunConfig):
    """Patches, decoder, loss and augmentation of a segmentation network."""

    crop: int | None = Field(
        None,
        ge=16,
        description="edge of the training patches, voxels; default 96 in 3D and 256 in 2D: "
        "with 48 the coarse levels see so little that a probe at Dice 0.95 fell to 0.45",
    )
    foreground: float = Field(
        0.8, ge=0, le=1, description="share of patches around a voxel of a class drawn with equal chances"
    )
    decoder_channels: tuple[int, ...] = Field(
        (12, 24, 48, 64),
        description="channels of a new decoder, full resolution first; a pre-trained one brings its own",
    )
    pretrained_decoder: bool = Field(
        True, description="go on with the decoder of the weights, where they hold one (hssl, models-genesis)"
    )
    supervised_levels: int = Field(
        1, ge=1, le=4, description="decoder levels with a loss of their own; 1 is no deep supervision"
    )
    dice_weight: float = Field(
        1.0, ge=0, description="weight of the Dice loss beside the cross-entropy (nnU-Net: 1)"
    )
    intensity: bool = Field(True, description="random gamma, contrast, blur and noise")
    rotation: float = Field(15.0, ge=0, le=180, description="largest random rotation, degrees")
    scaling: float = Field(1.15, ge=1, description="largest random zoom, in and out")
    flip: bool = Field(False, description="random flips; only where left and right are the same class")
