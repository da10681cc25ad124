"""The command line of a settings model: every field an option, its description the help."""

from __future__ import annotations

import argparse
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from medssl.errors import InputError

_METAVARS = {int: "N", float: "X", Path: "PATH"}


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are `InputError`, one line like all others."""

    def error(self, message: str) -> NoReturn:
        """Complain; the command line prints it and exits with 2."""
        raise InputError(f"{message}; see {self.prog} --help")


def parse(model: type[BaseModel], program: str, summary: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Values given on the command line by field name, sections as nested dicts; defaults left out.

    ``--json`` is added to every command and comes back under "json". Options are the field names with
    hyphens; a field of a section is ``--section.field``; several numbers are separated by commas; a free
    mapping takes ``--name key=value``, repeatedly, with dots for nested keys.

    Args:
        model: settings class.
        program: how the command is called, for the usage line.
        summary: first line of the help.
        arguments: what was typed after the command.

    Raises:
        InputError: unknown option or value missing.
    """
    parser = Parser(prog=program, description=summary, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    _add_fields(parser, model, ())
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    values: dict[str, Any] = {}
    for name, value in vars(parser.parse_args(_protect_negative(arguments))).items():
        _put(values, name.split("."), value)
    return values


def _add_fields(
    parser: argparse.ArgumentParser,
    model: type[BaseModel],
    section: tuple[str, ...],
    group: argparse._ArgumentGroup | None = None,
) -> None:
    """Add the options of a model to the parser, or to the group of its section; groups do not nest."""
    target = group or parser
    for name, field in model.model_fields.items():
        path = (*section, name)
        kind = _without_none(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            _add_fields(parser, kind, path, parser.add_argument_group(".".join(path), field.description))
            continue
        text = _help(field)
        if is_positional(field):
            # argparse would hold the placeholder of one that is absent against its choices: `merge` checks
            target.add_argument(".".join(path), nargs="?", metavar=name.upper(), help=text)
            continue
        option = "--" + ".".join(path).replace("_", "-")
        shape: dict[str, Any] = {"dest": ".".join(path), "help": text}
        if kind is bool:
            target.add_argument(option, action=argparse.BooleanOptionalAction, **shape)
        elif get_origin(kind) is dict:
            target.add_argument(option, action=_KeyValue, metavar="KEY=VALUE", **shape)
        elif get_origin(kind) in (tuple, list):
            target.add_argument(option, type=_split, metavar=_metavar(kind), **shape)
        elif get_origin(kind) is Literal:
            target.add_argument(option, **_choice(kind), **shape)
        else:
            metavar = _METAVARS.get(kind, name.upper().split("_")[-1])
            target.add_argument(option, metavar=metavar, **shape)


def is_positional(field: FieldInfo) -> bool:
    """Whether a field is given by its place, not by an option."""
    extra = field.json_schema_extra
    return isinstance(extra, Mapping) and extra.get("cli") == "positional"


def literal_values(field: FieldInfo) -> tuple[Any, ...]:
    """The values that a Literal allows; none for other types."""
    kind = _without_none(field.annotation)
    return get_args(kind) if get_origin(kind) is Literal else ()


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return kinds[0]
    return annotation


def _choice(kind: Any) -> dict[str, Any]:
    """Arguments for a Literal: its values, typed as they are written in the model."""
    if get_origin(kind) is not Literal:
        return {}
    values = {str(value): value for value in get_args(kind)}
    return {"choices": list(values.values()), "type": lambda text: values.get(text, text)}


def _metavar(kind: Any) -> str:
    parts = [part for part in get_args(kind) if part is not Ellipsis]
    return ",".join("N" if part in (int, float) else "NAME" for part in parts) + (
        ",..." if len(parts) == 1 else ""
    )


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    default = field.get_default(call_default_factory=False)
    if default is not PydanticUndefined and default not in (None, {}, ()):
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        text += f" (default: {shown})"
    return text.replace("%", "%%")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _protect_negative(arguments: Sequence[str]) -> list[str]:
    """``--at -1,2,3`` as ``--at=-1,2,3``: argparse would take the value for an option."""
    protected: list[str] = []
    for argument in arguments:
        is_number = argument[:1] == "-" and argument[1:2].isdigit()
        if is_number and protected and protected[-1].startswith("--") and "=" not in protected[-1]:
            protected[-1] += "=" + argument
        else:
            protected.append(argument)
    return protected


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value


class _KeyValue(argparse.Action):
    """Collects ``key=value`` into a nested dict; values are read as YAML (numbers, true, [1, 2])."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        key, equals, text = str(values).partition("=")
        if not equals or not key:
            parser.error(f"{option_string}: needs KEY=VALUE, given {values!r}")
        collected: dict[str, Any] = getattr(namespace, self.dest, {})
        try:
            _put(collected, key.split("."), yaml.safe_load(text))
        except yaml.YAMLError:
            parser.error(f"{option_string}: {text!r} is no YAML value")
        setattr(namespace, self.dest, collected)
