from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medssl.config.evaluate import EvaluateConfig
from medssl.config.merge import merge
from medssl.config.prepare import PrepareConfig
from medssl.config.resume import under_way
from medssl.errors import InputError


class Killed(BaseException):
    pass


def interrupted(config: PrepareConfig | EvaluateConfig) -> None:
    with pytest.raises(Killed), under_way(config):
        raise Killed


def test_an_interrupted_command_continues_from_any_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/a.safetensors").touch()
    config = EvaluateConfig(
        protocol="robustness",
        data=(Path("a.csv"), Path("b.csv")),
        out=Path("results"),
        encoder=("default", "runs/a.safetensors", "none"),
        families=("gamma", "energy"),
        seed=3,
    )
    interrupted(config)
    Path("results").rename("moved")
    monkeypatch.chdir("/")
    again = merge(EvaluateConfig, {"resume": str(tmp_path / "moved"), "device": "cpu"})
    assert again.data == (tmp_path / "a.csv", tmp_path / "b.csv")
    assert again.encoder == ("default", str(tmp_path / "runs" / "a.safetensors"), "none")
    assert (again.protocol, again.seed, again.families) == ("robustness", 3, ("gamma", "energy"))
    assert (again.out, again.device) == (tmp_path / "moved", "cpu")
    with pytest.raises(InputError, match="--seed: --resume takes its settings from"):
        merge(EvaluateConfig, {"resume": str(tmp_path / "moved"), "seed": 4})


def test_nothing_of_the_machine_stays_in_what_is_finished(tmp_path: Path) -> None:
    config = PrepareConfig(data=tmp_path / "scans", out=tmp_path / "cache")
    with under_way(config):
        assert yaml.safe_load((config.out / "prepare.yaml").read_text())["data"] == str(tmp_path / "scans")
    assert list(config.out.iterdir()) == []
    with pytest.raises(InputError, match=r"nothing is under way there \(no prepare.yaml\)"):
        merge(PrepareConfig, {"resume": str(config.out)})


def test_settings_that_were_refused_leave_nothing(tmp_path: Path) -> None:
    config = PrepareConfig(data=tmp_path / "scans", out=tmp_path / "cache")
    with pytest.raises(InputError), under_way(config):
        raise InputError("no scan")
    assert not config.out.exists()
