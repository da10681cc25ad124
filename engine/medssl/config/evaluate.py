"""Settings of `medssl evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from medssl.config.resume import ResumableConfig
from medssl.config.run import RunConfig
from medssl.config.thaw import FrozenShare, ThawShare

KindName = Literal["weights", "random", "raw", "filters"]
Family = Literal["gamma", "contrast", "energy", "rotation", "scaling"]

KINDS: tuple[KindName, ...] = ("weights", "random", "raw", "filters")
"""Feature kinds in the order of the tables: the weights under test and what they are held against."""

FAMILIES: tuple[Family, ...] = ("gamma", "contrast", "energy", "rotation", "scaling")
"""Families of perturbations, see `medssl.evaluation.perturbations`."""

SUPERVISED = ("label-fraction", "convergence", "robustness")
"""Protocols that fine-tune a network per cell; the others fit something small on frozen features."""

SCRATCH = "none"
"""The encoder without pre-training."""


def shown_name(encoder: str) -> str:
    """What an encoder of ``--encoder`` is called in the tables: the last part of its path."""
    return Path(encoder).name.removesuffix(".safetensors")


class FineTuningCells(RunConfig):
    """Budget and shape of the cells that fine-tune a network; equal for all encoders of a table."""

    task: str = Field("segmentation", description="fine-tuned protocols: segmentation or classification")
    fractions: tuple[float, ...] = Field(
        (0.05, 0.1, 0.25, 0.5, 1.0),
        min_length=1,
        description="shares of the training subjects; a smaller share is part of a larger one",
    )
    steps: int = Field(400, ge=1, description="fine-tuned protocols: optimiser steps per cell")
    seconds: float | None = Field(
        None, gt=0, description="fine-tuned protocols: training ends after this time at the latest"
    )
    batch_size: int = Field(4, ge=1, description="fine-tuned protocols: patches or images per step")
    crop: int | None = Field(
        None,
        ge=16,
        description="fine-tuned protocols: edge of the patches, voxels; default 64 in 3D, 128 in 2D",
    )
    lr: float = Field(1e-3, gt=0, description="fine-tuned protocols: peak learning rate")
    encoder_rate: float = Field(
        1.0,
        gt=0,
        le=1,
        description="fine-tuned protocols: learning rate of a pre-trained encoder relative to the rest; 1 "
        "gives all encoders equal settings",
    )
    mode: Literal["full", "frozen"] = Field(
        "full",
        description="fine-tuned protocols: frozen lets a pre-trained encoder learn after a share of the "
        "steps only (Wolf et al. 2023)",
    )
    frozen_share: FrozenShare = 1 / 7
    thaw_share: ThawShare = 1 / 70
    size: str = Field(
        "small",
        description="size of the encoder none where it stands alone; beside weights it has their form",
    )
    test_subjects: int | None = Field(
        None, ge=1, description="fine-tuned protocols: held-out subjects that are judged; default all"
    )
    look_every: int = Field(20, ge=1, description="convergence: steps between two looks at held-out subjects")
    look_subjects: int | None = Field(
        None, ge=1, description="convergence: held-out subjects per look; default 6, all for classification"
    )
    families: tuple[Family, ...] = Field(
        FAMILIES, min_length=1, description="robustness: what is done to the held-out scans"
    )
    strengths: int = Field(3, ge=1, description="robustness: grades of each perturbation")
    search: bool = Field(
        True, description="robustness: precision of search from perturbed scans too (segmentation only)"
    )

    @field_validator("fractions")
    @classmethod
    def _shares(cls, fractions: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < share <= 1 for share in fractions):
            raise ValueError("shares lie above 0 and at most 1")
        return tuple(sorted(set(fractions)))


class EvaluateConfig(ResumableConfig, FineTuningCells):
    """Few labels, measured.

    Runs into one ``out`` share embeddings and trained networks and skip the cells that are already there,
    so a stopped run is continued by the same command.
    """

    stored_as = "evaluate.yaml"

    protocol: Literal[
        "transfer", "interactive", "retrieval", "label-fraction", "convergence", "robustness"
    ] = Field(
        description="frozen features: transfer: label one subject, segment the others; interactive: a robot "
        "corrects one subject in rounds; retrieval: precision of search hits in other subjects. Fine-tuned: "
        "label-fraction: held-out score by share of the labels; convergence: steps saved until the best "
        "score of training from scratch; robustness: score and search precision lost on perturbed scans",
        json_schema_extra={"cli": "positional"},
    )
    data: tuple[Path, ...] = Field(min_length=1, description="data tables (CSV) with labels")
    encoder: tuple[str, ...] = Field(
        ("default",),
        min_length=1,
        description="weights under test: registry names, run folders or files; the fine-tuned protocols also "
        "take none for no pre-training",
    )
    out: Path = Field(description="folder for results and embeddings")
    seeds: int = Field(5, ge=1, description="repetitions; each draws subjects, voxels and random weights")
    kinds: tuple[KindName, ...] = Field(KINDS, min_length=1, description="feature kinds to compare")
    tasks: tuple[str, ...] = Field(
        (), description="values of the column task to use; default: the first of each table"
    )
    margin_mm: float = Field(32.0, ge=0, description="scans are cut to their labels plus this margin, mm")
    max_voxels: int = Field(3_000_000, ge=1_000, description="a larger cut is shrunk to this many voxels")
    voxels_per_class: int = Field(200, ge=1, description="transfer: labelled voxels per class")
    clicks_per_class: int = Field(5, ge=1, description="interactive: voxels per class and round")
    rounds: int = Field(10, ge=1, description="interactive: rounds of correction after the first one")
    goal: float = Field(0.8, gt=0, le=1, description="interactive: Dice whose cost in voxels is reported")
    queries: int = Field(50, ge=1, description="retrieval: query cells per class and subject")
    top: int = Field(10, ge=1, description="retrieval: hits per query")

    @field_validator("encoder", mode="before")
    @classmethod
    def _several(cls, encoder: Any) -> Any:
        return (str(encoder),) if isinstance(encoder, (str, Path)) else encoder
