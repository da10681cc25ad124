"""A form over settings: the same fields, bounds and help as the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from medssl.config.run import RunConfig

pytest.importorskip("magicgui")

pytestmark = pytest.mark.gui


class Inner(RunConfig):
    rate: float = 0.5


class Settings(RunConfig):
    """One field of every kind."""

    steps: int = Field(100, ge=1, le=500, description="optimiser steps")
    lr: float = Field(1e-3, gt=0, lt=1)
    amp: bool = False
    mode: Literal["full", "frozen"] = "full"
    name: str = "run"
    out: Path = Path("/runs")
    patience: int | None = Field(None, ge=1)
    channels: tuple[int, ...] = (4, 8)
    inner: Inner = Inner()


@pytest.fixture
def form(qtbot: Any):
    from napari_medssl.widgets.config_form import ConfigForm

    made = ConfigForm(Settings)
    qtbot.addWidget(made)
    return made


def test_the_defaults_come_back(form: Any) -> None:
    assert form.value() == Settings()


def test_any_settings_survive_the_form(form: Any) -> None:
    other = Settings(
        steps=7,
        lr=0.02,
        amp=True,
        mode="frozen",
        name="x",
        out=Path("/elsewhere"),
        patience=3,
        channels=(1, 2, 3),
        inner=Inner(rate=0.25),
    )
    heard: list[Any] = []
    form.valueChanged.connect(heard.append)
    form.setValue(other)
    assert form.value() == other
    assert heard == []  # a setter is silent


def test_a_change_by_the_user_is_told_once(form: Any) -> None:
    heard: list[Any] = []
    form.valueChanged.connect(heard.append)
    form._rows["steps"].value = 12
    assert heard == [Settings(steps=12)]


def test_bounds_and_help_are_those_of_the_model(form: Any) -> None:
    row = form._rows["steps"]
    assert (row.min, row.max) == (1, 500)
    assert row.tooltip == "optimiser steps"
    assert set(form._rows["mode"].choices) == {"full", "frozen"}


def test_a_wrong_value_is_explained_and_not_told(form: Any) -> None:
    heard: list[Any] = []
    form.valueChanged.connect(heard.append)
    form._rows["channels"].value = "[1, two]"
    assert "channels" in form.error()
    assert heard == []
    form._rows["channels"].value = "[1, 2]"
    assert form.error() == ""
    assert heard == [Settings(channels=(1, 2))]


def test_hidden_fields_keep_their_values(qtbot: Any) -> None:
    from napari_medssl.widgets.config_form import ConfigForm

    form = ConfigForm(Settings, ("steps",))
    qtbot.addWidget(form)
    form.setValue(Settings(name="kept"))
    form._rows["steps"].value = 9
    assert form.value() == Settings(name="kept", steps=9)
    assert form.values() == {"steps": 9}


@pytest.mark.parametrize(
    "home",
    [
        "medssl.config.finetune:FinetuneConfig",
        "medssl.config.swav:SwavConfig",
        "medssl.config.probe:ProbeConfig",
    ],
)
def test_every_command_has_a_form(home: str, qtbot: Any) -> None:
    from importlib import import_module

    from napari_medssl.widgets.config_form import ConfigForm

    module, _, name = home.partition(":")
    form = ConfigForm(getattr(import_module(module), name))
    qtbot.addWidget(form)
    assert form.values()
