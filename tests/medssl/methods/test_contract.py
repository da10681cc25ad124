"""What every registered method keeps, in 2D and 3D; a method without an entry in TINY fails."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_methods import TINY, SameBatch, make, make_batch, tensors

from medssl.config.training import TrainingConfig
from medssl.inference.embed import describe_steps
from medssl.inference.load import load_encoder
from medssl.jobs.progress import drain
from medssl.methods import METHODS
from medssl.protocols import Batch, Losses, Trainable
from medssl.training.export import export_weights
from medssl.training.fabric import build_fabric, usable_precision
from medssl.training.loop import fit
from medssl.transforms import correspondence
from medssl.transforms.spatial import draw_orthogonal
from medssl.volume import Geometry, Volume


@pytest.fixture
def bf16(device: torch.device) -> str:
    """The precision, where it can be computed in."""
    if device.type == "cpu" and usable_precision("bf16-mixed", use_cuda=False) != "bf16-mixed":
        pytest.skip("this CPU has no AMX for bf16")
    return "bf16-mixed"


def test_every_method_has_tiny_settings() -> None:
    assert set(METHODS) - set(TINY) == set()


@pytest.fixture(params=sorted(METHODS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[2, 3])
def spatial_dims(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def method(name: str, spatial_dims: int, device: torch.device) -> Any:
    return make(name, spatial_dims).to(device)


@pytest.fixture
def batch(spatial_dims: int, device: torch.device) -> Batch:
    return make_batch(spatial_dims).to(device)


def drawn(method: Any, batch: Batch, seed: int = 0) -> Any:
    return method.views(batch, torch.Generator(batch.image.device).manual_seed(seed))


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


def test_views_are_mirrored_along_the_axes_of_the_settings(
    name: str, spatial_dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_class = METHODS[name].config_class()
    settings = dict(TINY[name].settings)
    if "views" in config_class.model_fields:
        settings["views"] = {**settings.get("views", {}), "mirror_axes": (-1,)}
    elif "mirror_axes" in config_class.model_fields:
        settings["mirror_axes"] = (-1,)
    else:
        pytest.skip("its corruptions flip by their own rule")
    asked = []

    def noted(*given: Any, axes: Any, **named: Any) -> Any:
        asked.append(axes)
        return draw_orthogonal(*given, axes=axes, **named)

    monkeypatch.setattr(correspondence, "draw_orthogonal", noted)
    drawn(make(name, spatial_dims, settings), make_batch(spatial_dims))
    assert set(asked) == {(-1,)}


def test_views_are_a_function_of_the_generator_and_leave_the_batch_alone(method: Any, batch: Batch) -> None:
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


def test_one_step_gives_a_finite_loss_gradients_and_a_collapse_signal(
    name: str, method: Any, batch: Batch
) -> None:
    losses = method.train()(drawn(method, batch), 0)
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
    name: str, method: Any, batch: Batch, tmp_path: Path
) -> None:
    method.train()(drawn(method, batch), 0)  # running statistics move
    encoder = method.eval().backbone.encoder
    metadata = {
        "method": name,
        "encoder": {"name": "tiny", **encoder.config},
        "preprocessing": {"spacing_range": [1.0, 1.0]},
        "modalities": ["CT", "MR"],
    }
    modules = method.exported() if hasattr(method, "exported") else {}
    export_weights(tmp_path / "model.safetensors", method.backbone, metadata, modules=modules)
    x = torch.rand_like(batch.image[:1])
    loaded = load_encoder(tmp_path / "model.safetensors", x.device)
    for ours, theirs in zip(loaded(x), encoder(x), strict=True):
        torch.testing.assert_close(ours, theirs)
    shape = x.shape[2:]
    scan = Volume(x[0].cpu().numpy(), Geometry.from_arrays(shape, (1.0,) * len(shape)), "CT")
    embedding = drain(describe_steps(scan, loaded))
    assert embedding.features.array.shape[1:] == (8,) * len(shape)
    assert (embedding.prototypes is None) == (loaded.prototypes is None)


def test_a_few_steps_learn_a_fixed_batch(name: str, method: Any, batch: Batch) -> None:
    tiny = TINY[name]
    if not tiny.learns:
        pytest.skip("not by its own loss; the method's own test measures what is learnt")
    views = drawn(method.train(), batch)
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


def test_bf16_follows_float32(name: str, spatial_dims: int, device: torch.device, bf16: str) -> None:
    batches = SameBatch(make_batch(spatial_dims))
    losses = []
    for precision in ("32-true", bf16):
        config = TrainingConfig(steps=2, log_every=1, lr=1e-4, precision=precision)
        method = make(name, spatial_dims)
        torch.manual_seed(0)  # some draw in the forward pass
        steps = fit(method, batches, config, fabric=build_fabric(str(device), precision))
        losses.append([event.metrics["loss"] for event in steps])
        assert all(parameter.dtype == torch.float32 for parameter in method.parameters())
    by_rounding = 4.0 if name == "lvm-med" else 0.0  # its loss counts wrong rows: it jumps
    assert losses[1] == pytest.approx(losses[0], rel=0.1, abs=by_rounding)


def test_bf16_really_computes_in_bf16(device: torch.device, bf16: str) -> None:
    method = make("simclr", 2)
    seen = []
    method.backbone.register_forward_hook(lambda _module, _args, pyramid: seen.append(pyramid[-1].dtype))
    config = TrainingConfig(steps=1, precision=bf16)
    drain(fit(method, SameBatch(make_batch(2)), config, fabric=build_fabric(str(device), bf16)))
    assert seen == [torch.bfloat16]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler touches what it is warned of
@pytest.mark.parametrize("name", ["spark", "swav"])  # half a minute each
def test_compiled_training_is_training(
    name: str, spatial_dims: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graph and gradient as torch.compile records them; on a GPU with its own code, on a CPU (minutes of C++
    for each method) with the operations of always."""
    if device.type == "elsewhere":
        pytest.skip("a compiler knows real devices only")
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    compiled = partial(torch.compile, backend=backend)
    monkeypatch.setattr(torch, "compile", compiled)
    losses = []
    for is_compiled in (False, True):
        config = TrainingConfig(steps=2, log_every=1, lr=1e-3, compile=is_compiled)
        method = make(name, spatial_dims)
        torch.manual_seed(0)
        steps = fit(method, SameBatch(make_batch(spatial_dims)), config, fabric=build_fabric(str(device)))
        losses.append([event.metrics["loss"] for event in steps])
    torch.compiler.reset()
    assert losses[1] == pytest.approx(losses[0], rel=1e-2 if device.type == "cuda" else 1e-4)
