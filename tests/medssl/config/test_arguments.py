from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from medssl.config.arguments import is_positional, literal_values, parse
from medssl.config.command import CommandConfig
from medssl.config.evaluate import EvaluateConfig
from medssl.config.finetune import FinetuneConfig
from medssl.config.run import RunConfig
from medssl.config.weights import WeightsConfig
from medssl.errors import InputError


class Section(RunConfig):
    learning_rate: float = Field(0.1, description="how fast, in 100 % of cases")
    nested: bool = Field(True, description="a switch")


class Example(CommandConfig):
    path: Path = Field(description="a scan", json_schema_extra={"cli": "positional"})
    kind: Literal["mr", "ct"] = Field("mr", description="mr or ct", json_schema_extra={"cli": "positional"})
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


def test_what_is_given_by_position_may_be_left_out() -> None:
    assert given("--seed", "3") == {"seed": "3"}
    assert given("x.nii", "ct") == {"path": "x.nii", "kind": "ct"}


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
    [["--foo"], ["--dims", "4"], ["--at"], ["--free", "novalue"], ["x", "mr", "y"], ["--loop.learning", "1"]],
)
def test_complaints_are_one_line_and_name_the_way_out(arguments: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        given(*arguments)
    assert "\n" not in str(caught.value)
    assert "see medssl example --help" in str(caught.value)


@pytest.mark.parametrize("model", [FinetuneConfig, EvaluateConfig, WeightsConfig])
def test_help_names_what_may_be_given_by_position(
    model: type[CommandConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(model, "medssl example", "an example", ["--help"])
    text = " ".join(capsys.readouterr().out.replace("-\n", "-").split()).replace("- ", "-")
    first = next(field for field in model.model_fields.values() if is_positional(field))
    assert [value for value in literal_values(first) if value not in text] == []


def test_help_shows_descriptions_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        given("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "how fast, in 100 % of cases (default: 0.1)" in text
    assert "--at N,N,N" in text
    assert "a scan" in text
