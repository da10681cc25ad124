from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from medssl.config.arguments import parse
from medssl.config.command import CommandConfig
from medssl.config.run import RunConfig
from medssl.errors import InputError


class Section(RunConfig):
    learning_rate: float = Field(0.1, description="how fast, in 100 % of cases")
    nested: bool = Field(True, description="a switch")


class Example(CommandConfig):
    path: Path = Field(description="a scan", json_schema_extra={"cli": "positional"})
    at: tuple[int, int, int] | None = Field(None, description="voxel")
    dims: Literal[2, 3] = Field(3, description="dimensions")
    names: tuple[str, ...] = Field(("a",), description="names")
    free: dict[str, object] = Field({}, description="anything")
    loop: Section = Field(Section(), description="a section")


def given(*arguments: str) -> dict[str, object]:
    return parse(Example, "medssl example", "an example", arguments)


def test_only_what_was_typed_comes_back() -> None:
    assert given() == {}
    assert given("x.nii", "--json") == {"path": "x.nii", "json": True}


def test_every_kind_of_field_reaches_the_model() -> None:
    values = given(
        "x.nii", "--at", "1,2,3", "--dims", "2", "--names", "b,c", "--loop.learning-rate", "0.5",
        "--no-loop.nested", "--seed", "7", "--free", "a.b=1.5", "--free", "a.c=[1, true]",
    )  # fmt: skip
    config = Example.model_validate(values)
    assert config == Example(
        path=Path("x.nii"),
        at=(1, 2, 3),
        dims=2,
        names=("b", "c"),
        seed=7,
        free={"a": {"b": 1.5, "c": [1, True]}},
        loop=Section(learning_rate=0.5, nested=False),
    )


def test_negative_numbers_are_values() -> None:
    assert given("--at", "-1,2,3") == {"at": ["-1", "2", "3"]}


@pytest.mark.parametrize(
    "arguments",
    [["--foo"], ["--dims", "4"], ["--at"], ["--free", "novalue"], ["x", "y"], ["--loop.learning", "1"]],
)
def test_complaints_are_one_line_and_name_the_way_out(arguments: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        given(*arguments)
    assert "\n" not in str(caught.value)
    assert "see medssl example --help" in str(caught.value)


def test_help_shows_descriptions_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        given("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "how fast, in 100 % of cases (default: 0.1)" in text
    assert "--at N,N,N" in text
    assert "a scan" in text
