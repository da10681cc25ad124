"""The base of every settings model: one object for YAML, command line, form and Python."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from medssl.errors import InputError


class RunConfig(BaseModel):
    """Frozen settings; an unknown name is an error.

    Field descriptions are the help texts of the command line and of the forms; a field of a method
    names the paper's value and section in its description.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    planar: ClassVar[Mapping[str, Any]] = {}
    """Defaults in 2D where they differ from those of the fields, which are those of 3D."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_default(cls, values: Any) -> Any:
        """What a section does not name is that of the section's own default, not of its class."""
        if not isinstance(values, Mapping):
            return values
        defaults = {
            name: field.default.model_dump()
            for name, field in cls.model_fields.items()
            if isinstance(field.default, RunConfig) and isinstance(values.get(name), Mapping)
        }
        return _joined(defaults, values)

    @classmethod
    def for_dims(cls, values: Mapping[str, Any], dims: int) -> Self:
        """Settings whose defaults are those of 2D or of 3D.

        Args:
            values: what is given; may be nested.
            dims: 2 or 3.

        Raises:
            ValidationError: the values do not fit the model.
        """
        return cls.model_validate(_joined(cls._planar(), values) if dims == 2 else values)

    @classmethod
    def _planar(cls) -> dict[str, Any]:
        """``planar`` of the model and of the models in its fields; a model wins over those in it."""
        inner = {
            name: field.default._planar()
            for name, field in cls.model_fields.items()
            if isinstance(field.default, RunConfig)
        }
        return _joined({name: part for name, part in inner.items() if part}, cls.planar)

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


def _joined(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` over ``defaults``, models in models too."""
    joined = {**defaults, **values}
    for name, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(values.get(name), Mapping):
            joined[name] = _joined(default, values[name])
    return joined


def explain(error: ValidationError) -> str:
    """One line for the first problem of a validation error: which field, why, and the value given."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    given = "" if first["type"] in ("missing", "extra_forbidden") else f", given {first['input']!r}"
    return f"{name}: {first['msg']}{given}" if name else f"{first['msg']}{given}"
