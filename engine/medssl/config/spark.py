"""Settings of SparK."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from medssl.config.masked_image import MaskedImageConfig


class SparkConfig(MaskedImageConfig):
    """SparK (Tian et al. 2023); in 3D, with other values, S3D (Wald et al. 2024).

    The published training of SparK: encoder resnet50, drop_path 0.05, size 224, cell 32 and, as
    settings of the training loop, optimizer lamb, lr 2e-4 x batch / 256 (batch 4096), warmup 0.025 (40 of
    1600 epochs), warmup_start 0.005, final_lr 0.001, weight_decay 0.04, final_weight_decay 0.2, momentum 0.9,
    beta2 0.95, clip 5. On small sets (Wolf et al. 2023) the same with batch 32.

    S3D: encoder resenc-l, size 160, cell 16, ratio 0.75, normalise false, decoder pyramid, decoder_channels
    (32, 32, 64, 128, 256, 320), densify_norm instance, rim true; optimizer sgd, lr 1e-2, momentum 0.99,
    weight_decay 3e-5, clip 12.
    """

    planar: ClassVar = {**MaskedImageConfig.planar, "width": 768}

    densify_norm: Literal["batch", "instance", "none"] = Field(
        "batch",
        description="norm of seen cells before hidden ones are filled with a learned token (S3D: instance "
        "without scale; its efficient form: none)",
    )
    fill: Literal["mean", "zero"] = Field(
        "mean",
        description="what the first convolution and the U-Net decoder see in hidden cells: the mean of the "
        "seen ones (published: 0 in a standardised image, which is the same) or zero",
    )
    rim: bool = Field(
        False,
        description="as published S3D: the image itself is not masked, so the first convolution sees the rim "
        "of hidden cells",
    )
