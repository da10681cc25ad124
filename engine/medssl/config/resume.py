"""Commands that go on where they were stopped, for what is done already lies in their folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import Field

from medssl.config.command import CommandConfig
from medssl.errors import InputError


class ResumableConfig(CommandConfig):
    """Settings that lie in the folder of the results while the command is under way.

    They are removed when it ends: a finished cache or index names no place on the machine that made it.
    """

    stored_as: ClassVar[str]
    """Name of the file in ``out``."""

    out: Path = Field(description="folder for the results")
    resume: Path | None = Field(
        None, description="folder of an interrupted command to continue; its settings are taken from there"
    )


@contextmanager
def under_way(config: ResumableConfig) -> Iterator[None]:
    """Keep the settings in ``config.out`` until the work inside has ended, or was refused.

    Paths are written as absolute ones, so that the command can be continued from any folder.
    """
    if config.out.is_file():  # the command has words for that
        yield
        return
    is_new = not config.out.exists()
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / config.stored_as
    values = {name: _absolute(value) for name, value in config if name not in ("resume", "out")}
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    try:
        yield
    except InputError:  # these settings cannot be continued with, they have to be mended
        path.unlink(missing_ok=True)
        if is_new and not any(config.out.iterdir()):
            config.out.rmdir()
        raise
    path.unlink(missing_ok=True)


def _absolute(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_absolute(part) for part in value]
    is_path = isinstance(value, Path) or (isinstance(value, str) and "/" in value and Path(value).exists())
    return str(Path(value).resolve()) if is_path else value
