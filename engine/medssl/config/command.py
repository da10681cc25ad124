"""What the settings of every command share."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from medssl.config.run import RunConfig


class CommandConfig(RunConfig):
    """Settings of one command: fields are command-line options, their descriptions the help.

    A field with ``json_schema_extra={"cli": "positional"}`` is given by position.
    """

    seed: int = Field(0, ge=0, description="seed of every random draw")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:i")

    @field_validator("device")
    @classmethod
    def _names_a_device(cls, name: str) -> str:
        if re.fullmatch(r"auto|cpu|cuda(:\d+)?", name) is None:
            raise ValueError("use auto, cpu, cuda or cuda:0")
        return name
