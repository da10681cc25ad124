"""Settings of `medssl weights`."""

from __future__ import annotations

from pathlib import Path
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
        description="registry name, run folder or file; for import, the checkpoint",
        json_schema_extra={"cli": "positional"},
    )
    format: str | None = Field(None, description=f"format of a public checkpoint: {', '.join(FORMATS)}")
    out: Path | None = Field(
        None, description="folder for imported weights; by default one named like the file, beside it"
    )
    data: Path | None = Field(
        None,
        description="scans (prepared cache, data table or folder) to fit the projection of imported weights "
        "on; without it they can be fine-tuned, not embedded with",
    )
