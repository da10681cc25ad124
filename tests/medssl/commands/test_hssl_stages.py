"""The stages of HSSL as chained runs: encoder, joint, fine-tuning."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from medssl.commands import pretrain
from medssl.commands.finetune.start import Start
from medssl.commands.finetune.train import brought_decoder, build_task
from medssl.config.finetune import FinetuneConfig
from medssl.errors import InputError
from medssl.inference.load import load_encoder
from medssl.jobs.progress import drain

TINY = {"views": {"size": 16, "scale": [0.5, 1.0]}, "dim": 8, "decoder_channels": [4, 5, 6, 7]}


@pytest.fixture(autouse=True)
def _short_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "_CALIBRATION_BATCHES", 2)


@pytest.fixture
def domains(scans: Path) -> Path:
    """The table of scans with a task each: two tasks of one group, one of another."""
    lines = scans.read_text().splitlines()
    tasks = ["task", "liver", "brain", "spleen", "brain"]
    scans.write_text("\n".join(f"{line},{task}" for line, task in zip(lines, tasks, strict=True)) + "\n")
    return scans


def start(run: Path, **segmentation: Any) -> Start:
    config = FinetuneConfig.model_validate(
        {
            "task": "segmentation",
            "data": run,
            "out": run / "fine",
            "init": str(run),
            "segmentation": {"decoder_channels": [8, 8, 8, 8], **segmentation},
        }
    )
    return Start(config, cast(Any, None), run, cast(Any, None), load_encoder(run))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_each_stage_hands_its_weights_on(
    pretrain_config, domains: Path, tmp_path: Path, spatial_dims: int
) -> None:
    def run(name: str, **changes: Any) -> tuple[dict[str, torch.Tensor], list[str]]:
        settings = {**TINY, **changes.pop("settings", {})}
        config = pretrain_config(
            spatial_dims, method="hssl", out=tmp_path / name, settings=settings, data=domains, **changes
        )
        messages = []
        for progress in pretrain.run(config):
            messages.append(progress.message)
        return load_file(config.out / "exported" / "model.safetensors"), messages

    training = {"steps": 1, "batch_size": 4, "lr": 1e-12, "weight_decay": 0.0}
    first, _ = run("encoder")
    assert not [key for key in first if "decoder" in key or "heads" in key]
    joint, messages = run(
        "joint",
        settings={"stage": "joint", "encoder_rate": 0.1},
        init=str(tmp_path / "encoder"),
        training=training,
    )
    assert sum("tensors matched" in message for message in messages) == 2
    assert not [key for key in joint if "heads" in key]
    kept = [key for key in first if key.startswith("backbone.encoder.") and "running" not in key]
    for key in kept:  # the joint stage began where the first ended
        torch.testing.assert_close(joint[key], first[key])
    decoder = {key for key in joint if key.startswith("backbone.decoder.")}
    assert decoder
    # a third run goes on with the decoder too
    again, _ = run(
        "again", settings={"stage": "joint"}, init=str(tmp_path / "joint"), training=training, seed=5
    )
    for key in decoder:
        if "running" not in key:  # those are measured at the end of every run
            torch.testing.assert_close(again[key], joint[key])
    # and so does fine-tuning: the head alone is new
    cohort = cast(Any, SimpleNamespace(spatial_dims=spatial_dims, values=(0, 1, 2)))
    network = build_task(start(tmp_path / "joint"), cohort, None).network
    state = {f"backbone.{key}": value for key, value in network.backbone.state_dict().items()}
    for key in decoder | set(kept):
        torch.testing.assert_close(state[key], joint[key], rtol=0, atol=0)
    assert network.config["decoder"] == {"channels": [4, 5, 6, 7]}
    assert brought_decoder(start(tmp_path / "joint")) == {"channels": [4, 5, 6, 7]}
    # unless it is told not to, or there is none
    for other in (start(tmp_path / "joint", pretrained_decoder=False), start(tmp_path / "encoder")):
        assert brought_decoder(other) is None
        assert build_task(other, cohort, None).network.config["decoder"] == {"channels": [8, 8, 8, 8]}


def test_a_task_in_two_groups_is_refused(pretrain_config, scans: Path) -> None:
    lines = scans.read_text().splitlines()
    scans.write_text("\n".join([f"{lines[0]},task", *(f"{line},liver" for line in lines[1:])]) + "\n")
    with pytest.raises(InputError, match="task 'liver' is in the groups 'ct' and 'mr'"):
        drain(pretrain.run(pretrain_config(method="hssl", settings=TINY)))


def test_a_collection_without_tasks_is_learned_from_and_said(pretrain_config) -> None:
    steps = pretrain.run(pretrain_config(method="hssl", settings=TINY))
    assert any("every scan has the same task" in next(steps).message for _ in range(40))
    steps.close()
