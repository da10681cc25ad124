"""What the settings of every command share."""

from __future__ import annotations

from pydantic import Field

from medssl.config.run import RunConfig


class CommandConfig(RunConfig):
    """Settings of one command: fields are command-line options, their descriptions the help.

    A field with ``json_schema_extra={"cli": "positional"}`` is given by position.
    """

    seed: int = Field(0, ge=0, description="seed of every random draw")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:i")
