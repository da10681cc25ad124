from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medssl.commands import finetune, pretrain
from medssl.config.finetune import FinetuneConfig
from medssl.config.pretrain import PretrainConfig
from medssl.io import write_volume
from medssl.jobs.progress import Progress, drain
from medssl.store.runs import Run
from medssl.volume import Geometry, Volume

SETTINGS = {
    "global_size": 16,
    "local_size": 16,
    "local_count": 1,
    "freeze_prototypes_steps": 1,
    "cells_per_crop": 16,
    "crops": {"prototypes": 8, "hidden": 16, "dim": 8, "queue_length": 8},
    "cells": {"prototypes": 8, "hidden": 16, "dim": 8, "weight": 1.0},
}


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A data table of two CT and two MR scans of blobs, on disk as NIfTI."""
    rng = np.random.default_rng(0)
    lines = ["image,subject,modality,group,split"]
    for number in range(4):
        modality = ("CT", "MR")[number % 2]
        array = np.kron(rng.uniform(0, 200, (8, 8, 8)), np.ones((4, 4, 4))).astype(np.int16)
        volume = Volume(array[None], Geometry.from_arrays(array.shape, (1.0, 0.9, 1.1)), modality)
        write_volume(volume, tmp_path / f"{number}.nii.gz")
        lines.append(f"{number}.nii.gz,s{number},{modality},{modality.lower()},train")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


@pytest.fixture(autouse=True)
def brief_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows the last step of pre-training sees a few small crops, not a hundred large ones: ten
    seconds per run. The slow tests and the demo run the command as it is."""
    monkeypatch.setattr(pretrain, "_CALIBRATION_BATCHES", 2)
    monkeypatch.setattr(pretrain, "_PROJECTION_CROPS", 8)
    monkeypatch.setattr(pretrain, "_PROJECTION_EDGE", {2: 64, 3: 32})


@pytest.fixture
def pretrain_config(scans: Path, tmp_path: Path):
    def make(spatial_dims: int = 3, **changes: object) -> PretrainConfig:
        values: dict[str, object] = {
            "method": "swav",
            "data": scans,
            "out": tmp_path / "run",
            "dims": spatial_dims,
            "encoder": "tiny",
            "device": "cpu",
            "settings": SETTINGS,
            "training": {"steps": 4, "batch_size": 4, "checkpoint_every": 2, "log_every": 1},
            "sampling": {"crop": 24},
        }
        return PretrainConfig.model_validate({**values, **changes})

    return make


@pytest.fixture
def thaws_alike(tmp_path: Path):
    """The law of mode frozen: the encoder rests for half of the steps, then learns, and a run that was
    stopped while it rested ends like one that was not."""

    def check(config: FinetuneConfig) -> None:
        changes = {
            "mode": "frozen",
            "frozen_share": 0.5,
            "steps": 8,
            "thaw_share": 1 / 8,
            "evaluate_every": 4,
        }
        training = config.training.model_copy(update={"checkpoint_every": 4})
        config = config.model_copy(update={**changes, "training": training, "out": tmp_path / "whole"})
        drain(finetune.run(config))

        def stop(progress: Progress) -> None:
            if (progress.phase, progress.step) == ("training", 1):
                (tmp_path / "cut" / "stop").touch()

        cut = config.model_copy(update={"out": tmp_path / "cut"})
        assert drain(finetune.run(cut), stop).step == 2
        assert drain(finetune.run(cut.model_copy(update={"resume": tmp_path / "cut"}))).step == 8
        resting, whole = (torch.load(path)["model"] for path in Run(tmp_path / "whole").checkpoints())
        resumed = torch.load(Run(tmp_path / "cut").checkpoints()[-1])["model"]
        weights = load_file(config.init)
        for name, values in whole.items():
            assert torch.equal(values, resumed[name]), name
            place = name.removeprefix("network.")
            if "encoder" in name and values.ndim > 1:
                assert torch.equal(resting[name], weights[place]), f"{name} learned while it rested"
                assert not torch.equal(values, weights[place]), f"{name} never thawed"

    return check
