"""Decoders of Models Genesis, SparK and MAE go on to segmentation, with statistics of clean images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.commands import pretrain
from medssl.commands.finetune.start import Start
from medssl.commands.finetune.train import build_task
from medssl.config.finetune import FinetuneConfig
from medssl.inference.load import load_encoder
from medssl.inference.segment import load_segmenter
from medssl.jobs.progress import drain
from medssl.nets import encoders
from medssl.nets.backbone import Backbone
from medssl.nets.decoder import restore_decoder
from medssl.protocols import Batch
from medssl.store.weights import resolve
from medssl.training import calibration
from medssl.training.export import export_weights

SMALL = {"genesis": {"architecture": "genesis", "width": 2}, "tiny": encoders.ENCODERS["tiny"]}
DECODER = {"genesis": {"architecture": "genesis", "width": 2}, "tiny": {"channels": [4, 6, 8, 8]}}


@pytest.fixture(params=[2, 3])
def spatial_dims(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The images of the batches that statistics were measured on."""
    images: list[torch.Tensor] = []
    measure = calibration.calibrate_norms

    def watched(module: nn.Module, forward: Any, batches: list[Batch]) -> None:
        images[:] = [batch.image for batch in batches]
        measure(module, forward, batches)

    monkeypatch.setattr(calibration, "calibrate_norms", watched)
    return images


MASKED = {"decoder": "pyramid", "width": 64, "ratio": 0.5}
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "genesis": ("models-genesis", "genesis", {"paint_p": 0.9}),
    "tiny": ("models-genesis", "tiny", {"paint_p": 0.9}),
    "spark": ("spark", "tiny", MASKED),
    "mae": ("mae", "tiny", MASKED),
}
"""Method, encoder and settings."""


@pytest.fixture(params=RUNS)
def run(request, spatial_dims: int, pretrain_config, monkeypatch, shown) -> Path:
    """A run with few channels; in training most of each image is painted over or hidden."""
    method, encoder, settings = RUNS[request.param]
    monkeypatch.setattr(encoders, "ENCODERS", {**encoders.ENCODERS, **SMALL})
    monkeypatch.setattr(pretrain, "_CALIBRATION_BATCHES", 2)
    monkeypatch.setattr(pretrain, "_PROJECTION_CROPS", 16)
    config = pretrain_config(
        spatial_dims,
        method=method,
        encoder=encoder,
        training={"steps": 1, "batch_size": 4},
        sampling={"crop": 32},
        settings={"decoder_channels": [4, 6, 8, 8], **settings},
    )
    drain(pretrain.run(config))
    return config.out


def test_segmentation_goes_on_with_the_decoder_and_keeps_it(
    run: Path, spatial_dims: int, tmp_path: Path
) -> None:
    encoder = load_encoder(run)
    config = FinetuneConfig.model_validate(
        {"task": "segmentation", "data": run, "out": tmp_path / "fine", "init": str(run)}
    )
    start = Start(config, cast(Any, None), run, cast(Any, None), encoder)
    cohort = cast(Any, SimpleNamespace(spatial_dims=spatial_dims, values=(0, 1, 2)))
    network = build_task(start, cohort, None).network
    name = "genesis" if "architecture" in encoder.metadata["decoder"] else "tiny"
    assert encoder.metadata["decoder"] == network.config["decoder"] == DECODER[name]
    trained = load_file(resolve(str(run)).path)
    state = {f"backbone.{key}": value for key, value in network.backbone.state_dict().items()}
    kept = {key for key in trained if key.startswith("backbone.decoder.")}
    assert len(kept) > 10
    for key in kept:
        torch.testing.assert_close(state[key], trained[key], rtol=0, atol=0)
    # what is exported is read again with the same decoder
    file = tmp_path / "segmenter.safetensors"
    task = {
        "kind": "network",
        "name": "segmentation",
        "network": network.config,
        "classes": [{"value": value, "name": str(value)} for value in range(3)],
    }
    modules = {"segmentation": network.segmentation}
    export_weights(file, network.backbone, {**encoder.metadata, "task": task}, modules=modules)
    again = load_segmenter(resolve(str(file))).network
    x = torch.rand(1, 1, *(32,) * spatial_dims)
    torch.testing.assert_close(again(x), network.eval()(x))


def test_statistics_are_those_of_clean_images(run: Path, shown: list[torch.Tensor]) -> None:
    encoder = load_encoder(run)
    backbone = Backbone(encoder.encoder, restore_decoder(encoder.metadata["decoder"], encoder.encoder))
    trained = load_file(resolve(str(run)).path)
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in trained.items() if "backbone" in k})
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    kept = [norm.running_mean.clone() for norm in norms]
    means: dict[nn.Module, list[torch.Tensor]] = {norm: [] for norm in norms}
    for norm in norms:
        norm.register_forward_hook(
            lambda norm, given, _: means[norm].append(given[0].transpose(0, 1).flatten(1).mean(1))
        )
    with torch.no_grad():
        for image in shown:
            backbone.train()
            backbone.decoder(image, backbone.encoder(image))
    assert len(shown) == 2
    assert len(norms) > 10
    for norm, mean in zip(norms, kept, strict=True):
        torch.testing.assert_close(torch.stack(means[norm]).mean(0), mean)
