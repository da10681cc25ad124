"""Segmentation beside a self-supervised method, and from weights that have no projection."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medssl.commands import finetune, predict, weights
from medssl.config.finetune import FinetuneConfig
from medssl.config.predict import PredictConfig
from medssl.config.weights import WeightsConfig
from medssl.inference.load import load_encoder
from medssl.inference.segment import load_segmenter
from medssl.io import read_volume, write_volume
from medssl.jobs.progress import Progress, drain
from medssl.nets.unet import GenesisDecoder, GenesisEncoder
from medssl.store.weights import resolve
from medssl.training import optim
from medssl.volume import Geometry, Volume

SMALL = {"decoder_channels": (4, 6, 8, 8), "crop": 32, "intensity": False, "rotation": 0, "scaling": 1}
METHODS: dict[str, dict[str, Any]] = {
    "models-genesis": {"decoder_channels": [5, 5, 5, 5]},
    "mae": {"decoder": "pyramid", "width": 64, "decoder_channels": [5, 5, 5, 5]},
    "hssl": {
        "stage": "joint",
        "dim": 8,
        "views": {"size": 16, "scale": [0.5, 1.0]},
        "decoder_channels": [5] * 4,
    },
}


@pytest.fixture(params=[2, 3])
def spatial_dims(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def data(tmp_path: Path, spatial_dims: int) -> Path:
    """Two scans to learn from and one held out: a bright block on grey, of three tasks in two groups."""
    shape, lines = (32, 32, 40)[-spatial_dims:], []
    for number, split in enumerate(("train", "train", "train", "val")):
        rng = np.random.default_rng(number)
        mask = np.zeros(shape, np.uint8)
        mask[tuple(slice(c, c + 12) for c in rng.integers(4, 10, spatial_dims))] = 1
        image = (300 + 500.0 * mask + rng.normal(0, 40, shape)).clip(0, 1000).astype(np.int16)
        geometry = Geometry.from_arrays(shape, (0.5,) * spatial_dims)
        for name, values in (("image", image), ("mask", mask)):
            write_volume(Volume(values[None], geometry, "MR"), tmp_path / f"{name}{number}.mha")
        domain = ("liver", "ct"), ("brain", "mr"), ("spleen", "ct"), ("brain", "mr")
        lines.append([f"image{number}.mha", f"mask{number}.mha", f"s{number}", split, "MR", *domain[number]])
    with (tmp_path / "data.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["image", "label", "subject", "split", "modality", "task", "group"], *lines]
        )
    return tmp_path / "data.csv"


def settings(data: Path, init: object, **changes: object) -> FinetuneConfig:
    values = {
        "task": "segmentation",
        "data": data,
        "out": data.with_name("run"),
        "init": str(init),
        "steps": 2,
        "evaluate_every": 2,
        "device": "cpu",
        "segmentation": SMALL,
        **changes,
    }
    return FinetuneConfig.model_validate(values)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_with_a_decoder_leaves_that_of_the_task_alone(
    data: Path, tiny_weights: dict[int, Path], spatial_dims: int, method: str
) -> None:
    hybrid = {
        "hybrid": 0.5,
        "unlabelled": data,
        "hybrid_method": method,
        "hybrid_crop": 32,
        "hybrid_batch": 3,
    }
    said: list[Progress] = []
    init = tiny_weights[spatial_dims]
    result = drain(
        finetune.run(settings(data, init, **hybrid, hybrid_settings=METHODS[method])),
        said.append,
    )
    assert result.step == 2
    last = [progress.metrics for progress in said if "self_supervised" in progress.metrics][-1]
    assert np.isfinite(last["self_supervised"])
    assert last["self_supervised"] > 0
    if method == "hssl":  # three tasks and two groups are told apart beside the images
        assert last["ssl_dec1/task"] == pytest.approx(np.log(3), abs=0.7)
        assert last["ssl_dec1/group"] == pytest.approx(np.log(2), abs=0.5)
    folder = data.with_name("run") / "exported"
    (network,) = [
        path for path in folder.glob("*.safetensors") if "network" in str(resolve(path).metadata["task"])
    ]
    segmenter = load_segmenter(resolve(network)).network
    assert segmenter.config["decoder"] == {"channels": [4, 6, 8, 8]}


@pytest.mark.parametrize("is_hybrid", [False, True])
def test_stages_learn_the_slower_the_nearer_to_the_image(
    data: Path,
    tiny_weights: dict[int, Path],
    spatial_dims: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_hybrid: bool,
) -> None:
    factors: dict[str, float] = {}
    build = optim.build_optimizer

    def noted(task: torch.nn.Module, *given: Any, **named: Any) -> torch.optim.Optimizer:
        optimizer = build(task, *given, **named)
        names = {id(parameter): name.removeprefix("task.") for name, parameter in task.named_parameters()}
        for group in optimizer.param_groups:
            factors.update({names[id(parameter)]: group["lr_scale"] for parameter in group["params"]})
        return optimizer

    monkeypatch.setattr(optim, "build_optimizer", noted)
    hybrid = {
        "hybrid": 0.5,
        "unlabelled": data,
        "hybrid_method": "hssl",
        "hybrid_settings": METHODS["hssl"],
        "hybrid_crop": 32,
        "hybrid_batch": 3,
    }
    changes = {"encoder_rate": 0.5, "layer_decay": 0.25, "steps": 1, **(hybrid if is_hybrid else {})}
    drain(finetune.run(settings(data, tiny_weights[spatial_dims], **changes)))
    stages = [{v for k, v in factors.items() if f"backbone.encoder.stages.{n}." in k} for n in range(4)]
    assert stages == [{0.5 * 0.25 ** (3 - n)} for n in range(4)]
    rest = {name: factor for name, factor in factors.items() if "backbone.encoder." not in name}
    assert {factor for name, factor in rest.items() if name.startswith("network.linear.")} == {0.5}
    assert {factor for name, factor in rest.items() if not name.startswith("network.linear.")} == {1.0}


def test_too_few_unlabelled_crops_for_the_prototypes_are_said(
    data: Path, tiny_weights: dict[int, Path], spatial_dims: int
) -> None:
    part = {"prototypes": 24, "hidden": 16, "dim": 8}
    swav = {"crops": part, "global_size": 16, "local_size": 16, "local_count": 1}
    hybrid = {"hybrid": 0.5, "unlabelled": data, "hybrid_settings": swav, "hybrid_crop": 24}
    init, entropy = tiny_weights[spatial_dims], {}
    for count, is_said in ((1, True), (6, False)):
        said: list[Progress] = []
        changes = {**hybrid, "hybrid_batch": count, "out": data.with_name(f"run{count}")}
        drain(finetune.run(settings(data, init, **changes)), said.append)
        warned = [progress.message for progress in said if "most stay empty" in progress.message]
        assert bool(warned) == is_said
        assert not warned or "24 prototypes of crops are many for a batch of 1" in warned[0]
        (entropy[count],) = {
            p.metrics["ssl_crops/code_entropy"] for p in said if "self_supervised" in p.metrics
        }
    assert entropy[1] == pytest.approx(np.log(24)), "of one sample nothing can be clustered"
    assert entropy[6] < 0.99 * np.log(24)


def test_weights_without_a_projection_are_fine_tuned_with_their_own_decoder(
    data: Path, spatial_dims: int
) -> None:
    torch.manual_seed(0)
    encoder, decoder = GenesisEncoder(spatial_dims, 1, 4), GenesisDecoder(spatial_dims, 4)
    state = {**encoder.state_dict(), **decoder.state_dict()}
    file = data.with_name("Genesis_Chest_CT.pt")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    drain(weights.run(WeightsConfig(action="import", name=str(file), format="genesis", device="cpu")))
    imported = data.with_name("Genesis_Chest_CT")
    assert not load_encoder(imported).has_projection
    said: list[Progress] = []
    result = drain(finetune.run(settings(data, imported)), said.append)
    assert (result.use, result.step) == ("network", 2)
    assert list(result.scores) == ["network"], "a probe needs the projection"
    assert any(f"going on with the decoder of {imported}" in progress.message for progress in said)
    exported = resolve(data.with_name("run"))
    assert load_segmenter(exported).network.config["decoder"] == {"architecture": "genesis", "width": 4}
    assert not load_encoder(data.with_name("run")).has_projection
    out = data.with_name("mask.nii.gz")
    done = drain(
        predict.run(PredictConfig(model=str(exported.path), input=data.with_name("image3.mha"), out=out))
    )
    assert done.kind == "network"
    assert read_volume(out).geometry.matches(read_volume(data.with_name("image3.mha")).geometry)
