"""Settings of the detection task."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medssl.config.run import RunConfig


class DetectionConfig(RunConfig):
    """Patches, targets, head, loss and suppression of a box detector."""

    crop: int | None = Field(
        None, ge=16, description="edge of the training patches, voxels; default 64 in 3D and 256 in 2D"
    )
    foreground: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of patches around a box; the others lie anywhere in a scan: with 0.8, bones and "
        "muscles that few patches held were taken for lesions",
    )
    masks: Literal["classes", "instances"] = Field(
        "classes",
        description="what a mask value is where boxes are made from masks: classes: the class of its "
        "connected components; instances: the number of one object, all of one class",
    )
    smallest: int = Field(
        2, ge=1, description="voxels of the smallest connected component that becomes a box"
    )
    channels: int = Field(32, ge=4, description="channels of the feature pyramid and the head")
    depth: int = Field(2, ge=0, description="3-wide convolutions in each branch of the head (FCOS: 4)")
    levels: int = Field(
        3, ge=1, le=4, description="levels with a head, finest (stride 2) first; coarser ones give context"
    )
    cells_per_box: float = Field(
        4.0, gt=0, description="a box belongs to the level where its mean edge is nearest to as many cells"
    )
    blur: float = Field(
        0.9,
        gt=0,
        description="least standard deviation of the Gaussian around a centre, cells; a third of half the "
        "box's edge where that is more (TTFNet, section 3.2: 0.54 of it)",
    )
    alpha: float = Field(2.0, ge=0, description="focusing exponent of the focal loss (CenterNet, eq. 1: 2)")
    beta: float = Field(
        4.0, ge=0, description="exponent of the penalty reduction near a centre (CenterNet, eq. 1: 4)"
    )
    box_weight: float = Field(
        2.0, ge=0, description="weight of the generalised IoU loss beside the focal loss (TTFNet: 5)"
    )
    intensity: bool = Field(True, description="random gamma, contrast, blur and noise")
    flip: bool = Field(True, description="random flips of image and boxes")
    suppression: float = Field(
        0.2, ge=0, le=1, description="IoU above which the weaker of two boxes of a class is dropped"
    )
    least_score: float = Field(0.05, ge=0, lt=1, description="boxes below this score are not reported")
    most_boxes: int = Field(100, ge=1, description="boxes reported per scan")
