"""Settings of `medssl evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medssl.config.command import CommandConfig

KindName = Literal["weights", "random", "raw", "filters"]

KINDS: tuple[KindName, ...] = ("weights", "random", "raw", "filters")
"""Feature kinds in the order of the tables: the weights under test and what they are held against."""


class EvaluateConfig(CommandConfig):
    """Few labels, measured: frozen features against random, raw and hand-made ones.

    Runs into one ``out`` share embeddings and skip the cells that are already there, so a stopped run
    is continued by the same command.
    """

    protocol: Literal["transfer", "interactive", "retrieval"] = Field(
        description="transfer: label one subject, segment the others; interactive: a robot corrects one "
        "subject in rounds; retrieval: precision of search hits in other subjects",
        json_schema_extra={"cli": "positional"},
    )
    data: tuple[Path, ...] = Field(min_length=1, description="data tables (CSV) with a column label")
    encoder: str = Field("default", description="weights under test: registry name, run folder or file")
    out: Path = Field(description="folder for results and embeddings")
    seeds: int = Field(5, ge=1, description="repetitions; each draws subject, voxels and random weights")
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
