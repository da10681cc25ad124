"""Settings of `medssl finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from medssl.config.command import CommandConfig
from medssl.config.segmentation import SegmentationConfig
from medssl.config.training import TrainingConfig

BRIEF_STEPS = 24
BRIEF_EVALUATE_EVERY = 8
BRIEF_RATE = (
    0.25  # of the learning rate: a few strokes must not pull the network away from the probe it starts at
)


class FinetuneConfig(CommandConfig):
    """Train encoder and decoder with labels, and keep the linear probe where it is better."""

    task: Literal["segmentation"] = Field(
        description="what to learn: segmentation", json_schema_extra={"cli": "positional"}
    )
    data: Path = Field(description="data table (CSV) with the columns image and label")
    out: Path = Field(description="run folder to make")
    init: str = Field(
        "default", description="weights to start from: registry name, run folder, file, or none"
    )
    mode: Literal["probe", "frozen", "full"] = Field(
        "full",
        description="probe: only a linear classifier; frozen: the encoder learns in the second half of the "
        "steps (Wolf et al. 2023); full: everything from the start, the encoder slower",
    )
    labels: Literal["dense", "scribbles"] = Field(
        "dense", description="what 0 means in the masks: dense: the background class; scribbles: unlabelled"
    )
    classes: dict[int, str] = Field({}, description="names of the mask values, e.g. 1=liver")
    fraction: float = Field(
        1.0, gt=0, le=1, description="share of the training subjects; smaller shares are part of larger ones"
    )
    brief: bool = Field(
        False,
        description="a minute or two on 2 CPU cores: 24 small steps of one patch; for the GUI",
    )
    steps: int | None = Field(None, ge=1, description="optimiser steps, in place of training.steps")
    batch_size: int | None = Field(
        None, ge=1, description="patches per step, in place of training.batch_size"
    )
    evaluate_every: int | None = Field(
        None, ge=1, description="steps between two looks at held-out patches; default 50, brief 10"
    )
    patience: int = Field(6, ge=1, description="looks without a better Dice before training stops early")
    encoder: str = Field("small", description="size of the encoder where init is none: tiny, small or base")
    encoder_rate: float = Field(
        0.2, gt=0, le=1, description="learning rate of the encoder's last stage relative to the decoder"
    )
    layer_decay: float = Field(
        0.7, gt=0, le=1, description="further factor on the learning rate per stage towards the image"
    )
    probe_voxels: int = Field(
        2000, ge=1, description="voxels per class and scan that the linear probe is fitted on"
    )
    judged_scans: int = Field(8, ge=1, description="held-out scans on which probe and network are compared")
    project: Path | None = Field(None, description="project whose stored features are used and added to")
    config: Path | None = Field(None, description="YAML file with any of these settings; options win over it")
    resume: Path | None = Field(None, description="run folder to continue; its settings are taken from there")
    segmentation: SegmentationConfig = Field(
        SegmentationConfig(), description="patches, decoder, loss, augmentation"
    )
    training: TrainingConfig = Field(
        TrainingConfig(steps=1000, batch_size=2, lr=1e-3, warmup=0.05, checkpoint_every=100, keep=3),
        description="the training loop",
    )

    @model_validator(mode="after")
    def _probe_needs_weights(self) -> Self:
        if self.mode == "probe" and self.init == "none":
            raise ValueError("mode probe needs weights; init is none")
        return self

    def loop(self) -> TrainingConfig:
        """Training settings with the short options put in."""
        short = {
            "steps": self.steps or (BRIEF_STEPS if self.brief else None),
            "batch_size": self.batch_size or (1 if self.brief else None),
            "lr": self.training.lr * BRIEF_RATE if self.brief else None,
        }
        return self.training.model_copy(
            update={name: value for name, value in short.items() if value is not None}
        )

    @property
    def interval(self) -> int:
        """Steps between two looks at held-out patches."""
        return self.evaluate_every or (BRIEF_EVALUATE_EVERY if self.brief else 50)
