"""What every registered method keeps, in 2D and 3D; a method without an entry in TINY fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from medssl.config.training import TrainingConfig
from medssl.inference.embed import describe_steps
from medssl.inference.load import load_encoder
from medssl.jobs.progress import drain
from medssl.methods import METHODS
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import ResidualEncoder
from medssl.protocols import Batch, Losses, Trainable
from medssl.training.export import export_weights
from medssl.training.fabric import build_fabric, usable_precision
from medssl.training.loop import fit
from medssl.volume import Geometry, Volume

needs_bf16 = pytest.mark.skipif(
    usable_precision("bf16-mixed", use_cuda=False) != "bf16-mixed", reason="this CPU has no AMX for bf16"
)
CLUSTERS = {"prototypes": 8, "hidden": 16, "dim": 8}
PAIR = {"size": 32, "scale": [0.5, 1.0]}


class Tiny(NamedTuple):
    """Small settings of a method, the metric that shows collapse, and whether it can learn a fixed batch."""

    settings: dict[str, Any]
    signal: str
    steps: int = 10
    learns: bool = True


TINY = {
    "swav": Tiny(
        {
            "crops": {**CLUSTERS, "queue_length": 8},
            "cells": CLUSTERS,
            "cells_per_crop": 16,
            "global_size": 32,
            "local_size": 16,
            "local_count": 1,
            "freeze_prototypes_steps": 1,
        },
        signal="crops/feature_spread",
    ),
    "simclr": Tiny({"views": PAIR, "hidden": 16, "dim": 8}, signal="feature_spread"),
    "moco": Tiny(
        {"views": PAIR, "hidden": 16, "dim": 8, "queue_length": 16},
        signal="feature_spread",
        learns=False,  # its queue fills with the very images of the batch
    ),
    "byol": Tiny({"views": PAIR, "hidden": 16, "dim": 8}, signal="feature_spread"),
    "hssl": Tiny(
        {
            "stage": "joint",
            "views": PAIR,
            "dim": 8,
            "tasks": 2,
            "groups": 2,
            "decoder_channels": [4, 4, 4, 4],
        },
        signal="feature_spread",
    ),
    "lvm-med": Tiny(
        {"size": 32, "nodes": 4, "neighbours": 3, "dim": 8, "cells": 4, "gamma": 2, "gumbel_scale": 3.0},
        signal="match_accuracy",
        learns=False,  # its loss counts wrong rows under noise
    ),
    "synthesis": Tiny(
        {"global_size": 32, "cells_per_crop": 16, "hidden": 16, "dim": 8}, signal="feature_spread"
    ),
    "models-genesis": Tiny({"windows": 20}, signal="feature_spread"),
    "spark": Tiny({"width": 64}, signal="feature_spread"),
    "mae": Tiny({"width": 64, "ratio": 0.5}, signal="feature_spread"),
}


def test_every_method_has_tiny_settings() -> None:
    assert set(METHODS) - set(TINY) == set()


@pytest.fixture(params=sorted(METHODS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[2, 3])
def spatial_dims(request: pytest.FixtureRequest) -> int:
    return request.param


def make(name: str, spatial_dims: int) -> Any:
    torch.manual_seed(0)
    entry = METHODS[name]
    config = entry.config_class().model_validate(TINY[name].settings)
    encoder = ResidualEncoder(spatial_dims, 1, (4, 6, 8, 8), (1, 1, 1, 1))
    return entry.build(config, Backbone(encoder), 2)


def make_batch(spatial_dims: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 1, *(8,) * spatial_dims, generator=generator)
    number = torch.arange(4)
    return Batch(
        image=nn.functional.interpolate(coarse, size=(32,) * spatial_dims),
        spacing=torch.ones(4, spatial_dims),
        modality=number % 2,
        index=number,
        targets={"task": number % 2, "group": number % 2},
    )


class SameBatch:
    """The same batch at every step."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def batches(self, start: int = 0) -> Iterator[Batch]:
        while True:
            yield self.batch


def drawn(method: Any, batch: Batch, seed: int = 0) -> Any:
    return method.views(batch, torch.Generator().manual_seed(seed))


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors inside nested containers and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors(getattr(value, field.name))
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)


def equal(first: Any, second: Any) -> bool:
    ours, theirs = list(tensors(first)), list(tensors(second))
    return len(ours) == len(theirs) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)
    )


def test_settings_survive_yaml_and_json(name: str, tmp_path: Path) -> None:
    model = METHODS[name].config_class()
    config = model.model_validate(TINY[name].settings)
    config.to_yaml(tmp_path / "config.yaml")
    assert model.from_yaml(tmp_path / "config.yaml") == config
    assert model.model_validate_json(config.model_dump_json()) == config
    assert all(field.description for field in model.model_fields.values())


def test_views_are_a_function_of_the_generator_and_leave_the_batch_alone(
    name: str, spatial_dims: int
) -> None:
    method, batch = make(name, spatial_dims), make_batch(spatial_dims)
    assert isinstance(method, Trainable)
    before = replace(batch, image=batch.image.clone(), index=batch.index.clone())
    torch.manual_seed(1)
    views = drawn(method, batch, 1)
    torch.manual_seed(2)  # torch's own generator has no say
    assert equal(views, drawn(method, batch, 1))
    assert not equal(views, drawn(method, batch, 2))
    kept = list(tensors(views))
    kept_before = [view.clone() for view in kept]
    method.train()(views, 0)
    assert equal(kept, kept_before)
    assert equal(batch, before)


def test_one_step_gives_a_finite_loss_gradients_and_a_collapse_signal(name: str, spatial_dims: int) -> None:
    method = make(name, spatial_dims).train()
    losses = method(drawn(method, make_batch(spatial_dims)), 0)
    assert isinstance(losses, Losses)
    assert losses.total.shape == ()
    assert torch.isfinite(losses.total)
    assert TINY[name].signal in losses.metrics
    for metric, value in losses.metrics.items():
        number = torch.as_tensor(value)
        assert number.numel() == 1, metric
        assert torch.isfinite(number), metric
        assert not number.requires_grad, metric
    losses.total.backward()
    for key, parameter in method.backbone.encoder.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.ndim == 1 or parameter.grad.abs().sum() > 0, key


def test_exported_weights_load_and_give_the_same_features(
    name: str, spatial_dims: int, tmp_path: Path
) -> None:
    method = make(name, spatial_dims).train()
    method(drawn(method, make_batch(spatial_dims)), 0)  # running statistics move
    encoder = method.eval().backbone.encoder
    metadata = {
        "method": name,
        "encoder": {"name": "tiny", **encoder.config},
        "preprocessing": {"spacing_range": [1.0, 1.0]},
        "modalities": ["CT", "MR"],
    }
    modules = method.exported() if hasattr(method, "exported") else {}
    export_weights(tmp_path / "model.safetensors", method.backbone, metadata, modules=modules)
    loaded = load_encoder(tmp_path / "model.safetensors")
    x = torch.rand(1, 1, *(32,) * spatial_dims)
    for ours, theirs in zip(loaded(x), encoder(x), strict=True):
        torch.testing.assert_close(ours, theirs)
    scan = Volume(x[0].numpy(), Geometry.from_arrays(x.shape[2:], (1.0,) * spatial_dims), "CT")
    embedding = drain(describe_steps(scan, loaded))
    assert embedding.features.array.shape[1:] == (8,) * spatial_dims
    assert (embedding.prototypes is None) == (loaded.prototypes is None)


def test_a_few_steps_learn_a_fixed_batch(name: str, spatial_dims: int) -> None:
    tiny = TINY[name]
    if not tiny.learns:
        pytest.skip("not by its own loss; the method's own test measures what is learnt")
    method = make(name, spatial_dims).train()
    views = drawn(method, make_batch(spatial_dims))
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    history = []
    for step in range(tiny.steps):
        losses = method(views, step)
        optimizer.zero_grad()
        losses.total.backward()
        if hasattr(method, "after_backward"):
            method.after_backward(step)
        optimizer.step()
        history.append(float(losses.total.detach()))
    assert sum(history[-2:]) < sum(history[:2])
    assert float(losses.metrics[tiny.signal]) > 0


@needs_bf16
def test_bf16_follows_float32(name: str, spatial_dims: int) -> None:
    batches = SameBatch(make_batch(spatial_dims))
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        config = TrainingConfig(steps=2, log_every=1, lr=1e-3, precision=precision)
        method = make(name, spatial_dims)
        torch.manual_seed(0)  # some draw in the forward pass
        steps = fit(method, batches, config, fabric=build_fabric("cpu", precision))
        losses.append([event.metrics["loss"] for event in steps])
        assert all(parameter.dtype == torch.float32 for parameter in method.parameters())
    by_rounding = 4.0 if name == "lvm-med" else 0.0  # its loss counts wrong rows: it jumps
    assert losses[1] == pytest.approx(losses[0], rel=0.1, abs=by_rounding)


@needs_bf16
def test_bf16_really_computes_in_bf16() -> None:
    method = make("simclr", 2)
    seen = []
    method.backbone.register_forward_hook(lambda _module, _args, pyramid: seen.append(pyramid[-1].dtype))
    config = TrainingConfig(steps=1, precision="bf16-mixed")
    drain(fit(method, SameBatch(make_batch(2)), config, fabric=build_fabric("cpu", config.precision)))
    assert seen == [torch.bfloat16]
