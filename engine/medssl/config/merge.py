"""One settings object out of a YAML file, an earlier run and the options given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from medssl.config.arguments import is_positional, literal_values
from medssl.config.command import CommandConfig
from medssl.config.resume import ResumableConfig
from medssl.errors import InputError

Config = TypeVar("Config", bound=CommandConfig)

_FREE_ON_RESUME = {"resume", "device"}
_MENDABLE = {"lr", "clip", "precision"}


def merge(model: type[Config], given: Mapping[str, Any]) -> Config:
    """Settings from what is given; given values win over the YAML file of ``config``.

    With ``resume`` all settings are those of the run, because a run that goes on with other settings is
    another run; only the device may change, and what keeps a training from going astray: learning rate,
    clipping and precision.

    Args:
        model: class of the settings.
        given: values by field name, nested mappings for sections.

    Raises:
        InputError: a file cannot be read, options stand beside ``resume``, or what is given by position is
            missing or unknown.
        ValidationError: another value does not fit.
    """
    values = dict(given)
    if "resume" in model.model_fields and values.get("resume") is not None:
        run = Path(values["resume"])
        before = _before(model, run)
        mended = values.get("training")
        if isinstance(mended, Mapping) and set(mended) <= _MENDABLE and "training" in before:
            values["training"] = before["training"] = overlaid(before["training"], mended)
        for name, value in values.items():
            if name not in _FREE_ON_RESUME and before.get(name) != value:
                raise InputError(
                    f"--{name.replace('_', '-')}: --resume takes its settings from {run}; leave it out"
                )
        if issubclass(model, ResumableConfig):
            values["out"] = run  # wherever the folder was moved to
        return model.model_validate({**before, **values})
    if "config" in model.model_fields and values.get("config") is not None:
        path = Path(values["config"])
        values = overlaid(_read(path, f"{path}: no such file; --config needs a YAML file"), values)
    _check_positions(model, values)
    return model.model_validate(values)


def _before(model: type[Config], run: Path) -> dict[str, Any]:
    """The settings of an earlier run."""
    if not issubclass(model, ResumableConfig):
        values = _read(run / "config.yaml", f"{run}: is not a run folder (no config.yaml)")
        for name, field in model.model_fields.items():
            if is_positional(field) and field.is_required() and name not in values:
                raise InputError(
                    f"{run}: is a run of another command (its settings name no {name}); continue it with the "
                    "command that began it"
                )
        return values
    missing = f"{run}: nothing is under way there (no {model.stored_as}); give all options to begin"
    return _read(run / model.stored_as, missing)


def _check_positions(model: type[Config], values: Mapping[str, Any]) -> None:
    """What is given by position is called as in the help."""
    for name, field in model.model_fields.items():
        if not is_positional(field):
            continue
        known = literal_values(field)
        way_out = f"choose from {', '.join(map(str, known))}" if known else "it follows the command"
        if values.get(name) is None:
            if field.is_required():
                raise InputError(f"{name.upper()}: is needed; {way_out}")
        elif known and values[name] not in known:
            raise InputError(f"{name.upper()} {values[name]}: unknown; {way_out}")


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``below`` with the values of ``above`` put in, section by section."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            merged[name] = overlaid(under, value)
        else:
            merged[name] = value
    return merged


def _read(path: Path, missing: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise InputError(missing) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: needs settings as 'name: value' lines, it holds a {type(values).__name__}")
    return values


def explain_option(error: ValidationError) -> str:
    """One line for the first problem: which option, why, and the value given."""
    first = error.errors()[0]
    option = "--" + ".".join(str(part) for part in first["loc"]).replace("_", "-")
    if first["type"] == "missing":
        return f"{option}: is needed"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{option}: no such setting"
    if option == "--":
        return reason
    return f"{option}: {reason}, given {first['input']!r}"
