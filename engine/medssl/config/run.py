"""The base of every settings model: one object for YAML, command line, form and Python."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from medssl.errors import InputError


class RunConfig(BaseModel):
    """Frozen settings; an unknown name is an error.

    Field descriptions are the help texts of the command line and of the forms; a field of a method
    names the paper's value and section in its description.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read settings from a YAML file.

        Raises:
            InputError: the file is absent, not YAML, or does not fit the model.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            return cls.model_validate(values)
        except (OSError, yaml.YAMLError) as error:
            raise InputError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
        except ValidationError as error:
            raise InputError(f"{path}: {explain(error)}") from error

    def to_yaml(self, path: Path) -> None:
        """Write all settings, defaults included."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8")

    def digest(self) -> str:
        """Short hash over all values: equal settings have equal digests."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def explain(error: ValidationError) -> str:
    """One line for the first problem of a validation error: which field, why, and the value given."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    given = "" if first["type"] in ("missing", "extra_forbidden") else f", given {first['input']!r}"
    return f"{name}: {first['msg']}{given}" if name else f"{first['msg']}{given}"
