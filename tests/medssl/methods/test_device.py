"""Another device than the CPU gives what the CPU gives (`pytest --device elsewhere`, or cuda)."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from tiny_methods import make, make_batch
from torch import Tensor

from medssl.methods import METHODS


@pytest.fixture(autouse=True)
def other(device: torch.device) -> torch.device:
    """The device under test; there is nothing to compare where all is on the CPU."""
    if device.type == "cpu":
        pytest.skip("needs --device elsewhere, or cuda")
    return device


def moved(value: Any, device: torch.device) -> Any:
    """The same with all tensors on ``device``."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: moved(getattr(value, f.name), device) for f in fields(value) if f.init}
        )
    if isinstance(value, dict):
        return {key: moved(part, device) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(moved(part, device) for part in value)
    return value


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_loss_and_gradients_are_those_of_the_cpu(name: str, spatial_dims: int, other: torch.device) -> None:
    if name == "lvm-med" and other.type == "cuda":
        pytest.skip("draws its noise on the device: another device, another noise")
    here, there = make(name, spatial_dims).train(), make(name, spatial_dims).to(other).train()
    batch = make_batch(spatial_dims).to(other)
    views = there.views(batch, torch.Generator(other).manual_seed(0))
    losses = [here(moved(views, torch.device("cpu")), 0), there(views, 0)]
    for one in losses:
        one.total.backward()
    rough = {"rtol": 1e-2, "atol": 1e-3} if other.type == "cuda" else {"rtol": 1e-5, "atol": 1e-7}
    torch.testing.assert_close(losses[1].total.detach().cpu(), losses[0].total.detach(), **rough)
    for ours, theirs in zip(there.parameters(), here.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad.cpu(), theirs.grad, **rough)


def test_devices_do_not_mix(other: torch.device) -> None:
    """What makes the stand-in worth running: it refuses what a GPU refuses."""
    there, here = torch.zeros(3, device=other), torch.zeros(3)
    with pytest.raises(RuntimeError, match="device"):
        there + here
    with pytest.raises(RuntimeError, match=r"device|generator"):
        torch.rand(3, device=other, generator=torch.Generator())
    with pytest.raises(RuntimeError, match=r"device|indices"):
        here[torch.zeros(1, dtype=torch.long, device=other)]
    with pytest.raises((TypeError, RuntimeError), match="numpy"):
        there.numpy()
    assert (there + torch.tensor(1.0)).tolist() == [1, 1, 1]  # a single number may lie anywhere
    assert there[torch.tensor([0, 2])].shape == (2,)  # so may indices


def test_autocast_chooses_the_types_of_cuda(other: torch.device) -> None:
    x = torch.rand(4, 4, device=other)
    with torch.autocast(other.type, dtype=torch.bfloat16):
        half = x @ x
        types = [
            half.dtype,
            (half + 1).dtype,
            half.softmax(1).dtype,
            half.sum().dtype,
            torch.cat([x, half]).dtype,
        ]
    assert types == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32, torch.float32]
