"""Settings of `medssl weights`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medssl.config.command import CommandConfig

FORMATS = ("genesis", "swav", "spark", "lvm-med", "openmind")


class WeightsConfig(CommandConfig):
    """The registry of weights, and public checkpoints."""

    action: Literal["list", "show", "verify", "import"] = Field(
        description="list, show NAME, verify or import FILE", json_schema_extra={"cli": "positional"}
    )
    name: str | None = Field(
        None,
        description="registry name, run folder or file",
        json_schema_extra={"cli": "positional"},
    )
    format: str | None = Field(None, description=f"format of a public checkpoint: {', '.join(FORMATS)}")
