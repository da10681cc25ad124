"""Settings of `medssl finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from medssl.config.classification import ClassificationConfig
from medssl.config.command import CommandConfig
from medssl.config.detection import DetectionConfig
from medssl.config.segmentation import SegmentationConfig
from medssl.config.thaw import FrozenShare, ThawShare
from medssl.config.training import TrainingConfig

BRIEF_STEPS = 24
BRIEF_EVALUATE_EVERY = 8
BRIEF_RATE = (
    0.25  # of the learning rate: a few strokes must not pull the network away from the probe it starts at
)

_BATCH = {"detection": 4, "classification": 16}
"""Patches or images per step where nothing is said; else training.batch_size."""


class FinetuneConfig(CommandConfig):
    """Train with labels, and keep the linear probe where it is better."""

    task: Literal["segmentation", "detection", "classification"] = Field(
        description="what to learn: segmentation, detection or classification",
        json_schema_extra={"cli": "positional"},
    )
    data: Path = Field(description="data table (CSV) with the columns image and label, boxes or class")
    out: Path = Field(description="run folder to make")
    init: str = Field(
        "default", description="weights to start from: registry name, run folder, file, or none"
    )
    mode: Literal["probe", "frozen", "full"] = Field(
        "full",
        description="probe: only a linear map on the frozen encoder; frozen: the encoder learns after a "
        "share of the steps (Wolf et al. 2023); full: everything from the start, the encoder slower",
    )
    frozen_share: FrozenShare = 1 / 7
    thaw_share: ThawShare = 1 / 70
    labels: Literal["dense", "scribbles"] = Field(
        "dense", description="what 0 means in the masks: dense: the background class; scribbles: unlabelled"
    )
    hybrid: float = Field(
        0.0,
        ge=0,
        description="weight of a self-supervised loss on unlabelled scans beside the supervised one "
        "(Ghesu et al. 2022); 0: none",
    )
    unlabelled: Path | None = Field(
        None,
        description="scans for the hybrid objective: prepared cache, list of caches, data table or folder",
    )
    hybrid_method: str = Field("swav", description="self-supervised method of the hybrid objective")
    hybrid_settings: dict[str, Any] = Field(
        {},
        description="settings of that method, see medssl.config.<method>; the encoder_rate of hssl has no "
        "effect here, the encoder learns at that of this command",
    )
    hybrid_batch: int = Field(
        16, ge=1, description="unlabelled crops per step; clustering needs several of each modality"
    )
    hybrid_ramp: float = Field(
        0.1, ge=0, le=1, description="share of the steps over which the weight grows from 0 to its value"
    )
    hybrid_decay: float = Field(
        0.0, ge=0, le=1, description="share of the steps, at the end, in which it falls to 0 (0.2 is usual)"
    )
    hybrid_crop: int | None = Field(
        None, ge=8, description="edge of the unlabelled crops, voxels; by default as in pre-training"
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
        None,
        ge=1,
        description="patches or images per step; default 4 in detection, 16 in classification, and "
        "training.batch_size in segmentation",
    )
    evaluate_every: int | None = Field(
        None, ge=1, description="steps between two looks at held-out patches; default 50, brief 8"
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
    note: str = Field(
        "", description="what whoever uses the weights must know; goes into their header and what they find"
    )
    project: Path | None = Field(None, description="project whose stored features are used and added to")
    config: Path | None = Field(None, description="YAML file with any of these settings; options win over it")
    resume: Path | None = Field(None, description="run folder to continue; its settings are taken from there")
    segmentation: SegmentationConfig = Field(
        SegmentationConfig(), description="patches, decoder, loss, augmentation"
    )
    detection: DetectionConfig = Field(
        DetectionConfig(), description="patches, targets, head, loss, suppression"
    )
    classification: ClassificationConfig = Field(
        ClassificationConfig(), description="size of the input, loss, augmentation, intervals"
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

    @model_validator(mode="after")
    def _hybrid_needs_scans(self) -> Self:
        if (self.hybrid > 0) != (self.unlabelled is not None):
            raise ValueError("hybrid and unlabelled go together: a weight above 0 and where the scans lie")
        if self.hybrid > 0 and self.mode == "probe":
            raise ValueError("mode probe learns no encoder; hybrid needs mode frozen or full")
        return self

    def loop(self) -> TrainingConfig:
        """Training settings with the short options put in."""
        short = {
            "steps": self.steps or (BRIEF_STEPS if self.brief else None),
            "batch_size": self.batch_size or (1 if self.brief else _BATCH.get(self.task)),
            "lr": self.training.lr * BRIEF_RATE if self.brief else None,
        }
        return self.training.model_copy(
            update={name: value for name, value in short.items() if value is not None}
        )

    @property
    def interval(self) -> int:
        """Steps between two looks at held-out patches."""
        return self.evaluate_every or (BRIEF_EVALUATE_EVERY if self.brief else 50)
