"""A form over any settings model: what the command line asks, with the same names and help."""

from __future__ import annotations

import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import yaml
from annotated_types import Ge, Gt, Le, Lt
from magicgui.widgets import (
    CheckBox,
    ComboBox,
    Container,
    FileEdit,
    FloatSpinBox,
    LineEdit,
    SpinBox,
)
from magicgui.widgets.bases import ValueWidget
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from medssl.config.run import RunConfig, explain

_LARGEST = 1_000_000_000
_BASE = 10.0


class ConfigForm(QWidget):
    """One row per field of a `RunConfig` class, built with magicgui.

    Numbers, switches, choices, paths and texts get a widget of their kind; any other type (tuples,
    nested models, optional values) is a line of YAML, where empty means none.

    Args:
        model: the settings class.
        fields: names of the fields to show, in this order; all of them by default.
        parent: Qt parent.
    """

    valueChanged = Signal(object)

    def __init__(
        self, model: type[RunConfig], fields: Collection[str] | None = None, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._model = model
        self._rest: dict[str, Any] = {}
        names = list(fields) if fields is not None else list(model.model_fields)
        self._rows = {name: _row(name, model.model_fields[name]) for name in names}
        self._form = Container(widgets=list(self._rows.values()), labels=True)
        self._form.native.layout().setContentsMargins(0, 0, 0, 0)
        self._error = QLabel()
        self._error.setWordWrap(True)
        self._error.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._form.native)
        layout.addWidget(self._error)
        self._form.changed.connect(self._on_changed)

    def value(self) -> RunConfig:
        """The settings as they stand.

        Raises:
            ValidationError: a field does not fit the model.
        """
        return self._model.model_validate({**self._rest, **self.values()})

    def values(self) -> dict[str, Any]:
        """What stands in the rows, by field name; not yet checked against the model."""
        return {name: _read(row) for name, row in self._rows.items()}

    def setValue(self, config: RunConfig) -> None:
        """Show other settings; fields without a row keep these values too. Raises no signal."""
        values = config.model_dump(mode="json")
        self._rest = {name: value for name, value in values.items() if name not in self._rows}
        with self._form.changed.blocked():
            for name, row in self._rows.items():
                with row.changed.blocked():
                    _write(row, values[name])
        self._show_error("")

    def error(self) -> str:
        """What is wrong with the settings, empty where nothing is."""
        return self._error.text()

    def _on_changed(self) -> None:
        try:
            value = self.value()
        except ValidationError as error:
            self._show_error(explain(error))
            return
        self._show_error("")
        self.valueChanged.emit(value)

    def _show_error(self, text: str) -> None:
        self._error.setText(text)
        self._error.setVisible(bool(text))


def _row(name: str, field: FieldInfo) -> ValueWidget:
    """The widget for one field, with the field's bounds, default and description."""
    options: dict[str, Any] = {
        "name": name,
        "label": name.replace("_", " ").capitalize(),
        "tooltip": field.description or "",
    }
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    kind = field.annotation
    if kind == (int | None):
        return _optional_count(field, default, options)
    if typing.get_origin(kind) is Literal:
        choices = list(typing.get_args(kind))
        return ComboBox(choices=choices, value=choices[0] if default is None else default, **options)
    if kind is bool:
        return CheckBox(value=bool(default), **options)
    if kind in (int, float):
        return _number(field, default, options)
    if kind is Path:
        return FileEdit(value=default or "", **options)
    row = LineEdit(value=(default or "") if kind is str else _to_text(default), **options)
    row.native.setProperty("yaml", kind is not str)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        row.native.setPlaceholderText("none")
    return row


def _optional_count(field: FieldInfo, default: int | None, options: dict[str, Any]) -> ValueWidget:
    """A number whose smallest value reads "default" and means none."""
    low, high = _bounds(field, 1)
    low = max(low, -1) - 1
    row = SpinBox(value=int(low if default is None else default), min=int(low), max=int(high), **options)
    row.native.setSpecialValueText("default")
    row.native.setProperty("none", int(low))
    return row


def _number(field: FieldInfo, default: Any, options: dict[str, Any]) -> ValueWidget:
    if field.annotation is int:
        low, high = _bounds(field, 1)
        return SpinBox(value=int(max(low, default or 0)), min=int(low), max=int(high), **options)
    low, high = _bounds(field, 0)
    start = min(max(float(default or 0), low), high)
    step = 10.0 ** _step_power(start or 1.0)
    return FloatSpinBox(value=start, min=low, max=high, step=step, **options)


def _step_power(value: float) -> int:
    """Power of ten of a sensible step: 0.001 for values around 0.01."""
    power = 0
    size = abs(value) or 1.0
    while size < 1:
        size *= _BASE
        power -= 1
    return power - 1 if power < 0 else -1


def _bounds(field: FieldInfo, step: int) -> tuple[float, float]:
    low, high = -float(_LARGEST), float(_LARGEST)
    for bound in field.metadata:
        if isinstance(bound, Ge):
            low = max(low, float(bound.ge))  # type: ignore[arg-type]
        elif isinstance(bound, Gt):
            low = max(low, float(bound.gt) + step)  # type: ignore[arg-type]
        elif isinstance(bound, Le):
            high = min(high, float(bound.le))  # type: ignore[arg-type]
        elif isinstance(bound, Lt):
            high = min(high, float(bound.lt) - step)  # type: ignore[arg-type]
    return low, high


def _is_yaml(row: ValueWidget) -> bool:
    return bool(row.native.property("yaml"))


def _to_text(value: Any) -> str:
    if value is None:
        return ""
    plain = to_jsonable_python(value)
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("...\n").strip()


def _read(row: ValueWidget) -> Any:
    if (none := row.native.property("none")) is not None:
        return None if row.value == none else row.value
    if not _is_yaml(row):
        return row.value
    try:
        return yaml.safe_load(row.value) if row.value.strip() else None
    except yaml.YAMLError:
        return row.value


def _write(row: ValueWidget, value: Any) -> None:
    none = row.native.property("none")
    empty = "" if none is None else none
    row.value = _to_text(value) if _is_yaml(row) else (empty if value is None else value)
