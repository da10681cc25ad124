"""Shares of a training in which a pre-trained encoder rests, and comes back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

FrozenShare = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="share of the steps in which mode frozen leaves the encoder alone; "
        "Wolf et al. 2023: the first 10 of 70 epochs",
    ),
]
ThawShare = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="share of the steps in which the encoder's rate doubles after the frozen phase, from a "
        "tenth (Wolf et al. 2023: one of 70 epochs)",
    ),
]
