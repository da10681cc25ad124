from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from medssl.config.finetune import FinetuneConfig
from medssl.config.merge import explain_option, merge, overlaid
from medssl.config.prepare import PrepareConfig
from medssl.config.pretrain import PretrainConfig
from medssl.config.weights import WeightsConfig
from medssl.errors import InputError


def test_options_win_over_the_file_section_by_section(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "method: swav\nencoder: tiny\ntraining: {lr: 0.5, steps: 7}\nsettings: {a: {b: 1, c: 2}}\n"
    )
    given = {"config": str(path), "data": "d", "out": "o", "encoder": "base", "training": {"steps": 9}}
    config = merge(PretrainConfig, {**given, "settings": {"a": {"c": 3}}})
    assert (config.encoder, config.training.lr, config.training.steps) == ("base", 0.5, 9)
    assert config.settings == {"a": {"b": 1, "c": 3}}
    assert config.loop().steps == 9
    assert merge(PretrainConfig, {**given, "steps": 3, "batch_size": 5}).loop().batch_size == 5


def test_a_resumed_run_takes_its_own_settings(tmp_path: Path) -> None:
    before = PretrainConfig(method="swav", data=Path("d"), out=tmp_path, seed=5)
    before.to_yaml(tmp_path / "config.yaml")
    config = merge(PretrainConfig, {"method": "swav", "resume": str(tmp_path), "device": "cpu"})
    assert (config.seed, config.data, config.device, config.resume) == (5, Path("d"), "cpu", tmp_path)
    with pytest.raises(InputError, match="--seed: --resume takes its settings from"):
        merge(PretrainConfig, {"resume": str(tmp_path), "seed": 6})
    mended = merge(PretrainConfig, {"resume": str(tmp_path), "training": {"lr": "1e-4", "clip": 1}})
    assert mended.training == before.training.model_copy(update={"lr": 1e-4, "clip": 1.0})
    with pytest.raises(InputError, match="--training: --resume takes its settings from"):
        merge(PretrainConfig, {"resume": str(tmp_path), "training": {"lr": 1e-4, "steps": 9}})
    with pytest.raises(InputError, match="is not a run folder"):
        merge(PretrainConfig, {"resume": str(tmp_path / "absent")})
    with pytest.raises(InputError, match=r"is a run of another command \(its settings name no task\)"):
        merge(FinetuneConfig, {"resume": str(tmp_path)})


@pytest.mark.parametrize(
    ("text", "words"),
    [("- 1\n- 2\n", "holds a list"), ("a: [1", "cannot be read as YAML"), (None, "no such file")],
)
def test_files_that_hold_no_settings_are_refused(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "a.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words):
        merge(PretrainConfig, {"config": str(path)})


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"out": "o"}, "--data: is needed"),
        ({"data": "d", "out": "o", "max_mb": "-1"}, "--max-mb: Input should be greater than 0, given '-1'"),
        ({"data": "d", "out": "o", "colour": 1}, "--colour: no such setting"),
    ],
)
def test_validation_is_explained_by_option(values: dict[str, object], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        merge(PrepareConfig, values)
    assert explain_option(caught.value) == line


@pytest.mark.parametrize(
    ("model", "values", "line"),
    [
        (WeightsConfig, {}, "ACTION: is needed; choose from list, show, verify, import"),
        (WeightsConfig, {"action": "burn"}, "ACTION burn: unknown; choose from list, show, verify, import"),
        (FinetuneConfig, {"data": "d"}, "TASK: is needed; choose from segmentation, detection, classific.*"),
        (PretrainConfig, {"data": "d"}, "METHOD: is needed; it follows the command"),
    ],
)
def test_what_is_given_by_position_is_called_as_in_the_help(model, values, line: str) -> None:
    with pytest.raises(InputError) as caught:
        merge(model, values)
    assert re.fullmatch(line, str(caught.value))


def test_overlaid_leaves_its_inputs_alone() -> None:
    below = {"a": {"b": 1}}
    assert overlaid(below, {"a": {"c": 2}, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    assert below == {"a": {"b": 1}}
