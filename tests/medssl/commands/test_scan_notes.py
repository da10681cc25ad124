"""What was inferred or repaired on reading scans is said by the commands that learn from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medssl.commands import finetune, pretrain
from medssl.config.finetune import FinetuneConfig
from medssl.io import write_volume
from medssl.jobs.progress import Progress, Steps
from medssl.volume import Geometry, Volume


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Four scans of a block on noise, the second with a NaN, and no modality in the table."""
    rng = np.random.default_rng(0)
    lines = ["image,label,class,split"]
    for number, split in enumerate(("train", "train", "train", "val")):
        mask = np.zeros((24, 24, 24), np.uint8)
        mask[8:16, 8:16, 8 - number : 16] = 1
        image = (100 + 200.0 * mask + rng.normal(0, 9, mask.shape)).astype(np.float32)
        if number == 1:
            image[0, 0, 0] = np.nan
        geometry = Geometry.from_arrays(mask.shape)
        write_volume(Volume(image[None], geometry), tmp_path / f"{number}.mha")
        write_volume(Volume(mask[None], geometry), tmp_path / f"{number}_label.mha")
        lines.append(f"{number}.mha,{number}_label.mha,{'ab'[number % 2]},{split}")
    path = tmp_path / "data.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def said_on_reading(steps: Steps[object]) -> list[str]:
    """Messages up to the first step that is not reading."""
    messages = []

    def keep(progress: Progress) -> bool:
        messages.append(progress.message)
        return progress.phase in ("starting", "reading", "preparing")

    while keep(next(steps)):
        pass
    steps.close()
    return messages


@pytest.mark.parametrize("task", ["segmentation", "detection", "classification"])
def test_finetune_says_them(table, tmp_path, tiny_weights, task):
    config = {
        "task": task,
        "data": table,
        "out": tmp_path / "run",
        "init": str(tiny_weights[3]),
        "device": "cpu",
    }
    said = said_on_reading(finetune.run(FinetuneConfig.model_validate(config)))
    (guess,) = [message for message in said if "modality not stated" in message]
    assert guess.startswith("0.mha: ")
    assert guess.endswith("(and 3 more like it)")
    (hole,) = [message for message in said if "NaN" in message]
    assert hole.startswith("1.mha: 1 NaN or infinite voxels were set to the lowest value")


def test_pretrain_says_them_where_it_prepares_the_scans(table, pretrain_config):
    said = said_on_reading(pretrain.run(pretrain_config(data=table)))
    assert any("modality not stated" in message and "2 more like it" in message for message in said)
    assert any("1 NaN or infinite" in message for message in said)
