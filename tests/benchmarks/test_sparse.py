"""What a sparse ResNet-50 costs beside the dense one, and beside sparse layers that gather and scatter."""

from __future__ import annotations

import copy
import statistics
import time
from functools import partial
from typing import NamedTuple

import pytest
import torch
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn

from medssl.nets.sparse import sparsify
from medssl.transforms.masking import draw_visible

pytestmark = pytest.mark.benchmark

SIDE, CELL, BATCH, RATIO = 224, 32, 4, 0.6
ROUNDS = 7
GPU_BATCH, GPU_ROUNDS = 128, 20


class ResNet50(nn.Module):
    """ResNet-50 that gives its four levels."""

    def __init__(self) -> None:
        super().__init__()
        net = ResNet(
            "bottleneck", [3, 4, 6, 3], [64, 128, 256, 512], spatial_dims=2, n_input_channels=3,
            conv1_t_size=7, conv1_t_stride=2, feed_forward=False, bias_downsample=False,
        )  # fmt: skip
        self.stem = nn.Sequential(net.conv1, net.bn1, net.act, net.maxpool)
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        pyramid = []
        for stage in self.stages:
            x = stage(x)
            pyramid.append(x)
        return pyramid


class Mask:
    """What the gathering layers share: the mask of the current pass."""

    cells: Tensor

    def at(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) bool at the resolution of ``x``."""
        rows, columns = (n // f for n, f in zip(x.shape[2:], self.cells.shape[2:], strict=True))
        return self.cells.repeat_interleave(rows, dim=2).repeat_interleave(columns, dim=3)


class Multiplied(nn.Module):
    """A layer whose output is multiplied by the mask."""

    def __init__(self, layer: nn.Module, mask: Mask) -> None:
        super().__init__()
        self.layer, self.mask = layer, mask

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y * self.mask.at(y)


class Gathered(nn.BatchNorm1d):
    """Batch norm of the seen positions gathered into rows, scattered back into zeros."""

    mask: Mask

    def forward(self, x: Tensor) -> Tensor:
        where = self.mask.at(x).squeeze(1).nonzero(as_tuple=True)
        last = x.permute(0, 2, 3, 1)
        rows = super().forward(last[where])
        scattered = torch.zeros_like(last)
        scattered[where] = rows
        return scattered.permute(0, 3, 1, 2)


def gathering(module: nn.Module, mask: Mask) -> nn.Module:
    """A copy of the network with layers that gather and scatter."""
    if isinstance(module, nn.BatchNorm2d):
        norm = Gathered(module.num_features)
        norm.load_state_dict(module.state_dict())
        norm.mask = mask
        return norm
    if isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
        return Multiplied(module, mask)
    for name, child in module.named_children():
        setattr(module, name, gathering(child, mask))
    return module


class Trio(NamedTuple):
    """One network in three forms, and what they see."""

    dense: nn.Module
    gather: nn.Module
    sparse: nn.Module
    x: Tensor
    visible: Tensor


def trio(batch: int, device: str = "cpu") -> Trio:
    """Equal parameters and a masked batch on a device."""
    torch.manual_seed(0)
    dense = ResNet50().train().to(device)
    mask = Mask()
    gather = gathering(copy.deepcopy(dense), mask).to(device)
    sparse = sparsify(copy.deepcopy(dense))
    generator = torch.Generator().manual_seed(0)
    mask.cells = draw_visible(batch, (SIDE // CELL,) * 2, RATIO, generator).to(device)
    x = torch.rand(batch, 3, SIDE, SIDE, generator=generator).to(device)
    return Trio(dense, gather, sparse, x * mask.at(x), mask.cells)


def test_a_sparse_encoder_costs_at_most_a_quarter_more(figures) -> None:
    dense, gather, sparse, x, visible = trio(BATCH)
    for ours, theirs in zip(sparse(x, visible), gather(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)  # 50 norms of few rows add up
    works = {
        "dense": lambda: dense(x),
        "gather": lambda: gather(x),
        "sparse": lambda: sparse(x, visible),
    }
    ratios: dict[str, list[float]] = {"dense": [], "gather": []}
    for number in range(ROUNDS + 1):
        seconds = {}
        # all take turns at going first, so that a busy machine slows them alike
        order = list(works)
        for name in order[number % 3 :] + order[: number % 3]:
            begun = time.process_time()
            sum(level.mean() for level in works[name]()).backward()
            seconds[name] = time.process_time() - begun
        for name, taken in ratios.items():
            if number:
                taken.append(seconds["sparse"] / seconds[name])
    limits = {
        "dense": ("sparse ResNet-50", 1.25, "dense ResNet-50"),
        "gather": ("sparse ResNet-50 without gathering", 1.0, "layers that gather and scatter"),
    }
    for name, (figure, limit, reference) in limits.items():
        figures.at_most(
            figure,
            statistics.median(ratios[name]),
            limit,
            "x",
            reference=f"{reference}; forward and backward, {BATCH} images of {SIDE} px; CPU time",
            runs=ROUNDS,
        )


@pytest.mark.gpu
def test_on_a_gpu_a_compiled_sparse_encoder_is_nearly_as_fast_as_the_dense_one(figures, seconds) -> None:
    """In bf16. The layers that gather run as they are and compiled; the faster counts."""
    dense, gather, sparse, x, visible = trio(GPU_BATCH, "cuda")
    networks = (
        torch.compile(dense), partial(torch.compile(sparse), visible=visible), gather, torch.compile(gather)
    )  # fmt: skip

    def work(network) -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            total = sum(level.float().mean() for level in network(x))
        total.backward()

    works = [partial(work, network) for network in networks]
    for one in works * 3:  # compiles, and the allocator settles
        one()
    dense_s, sparse_s, *gather_s = seconds(*works, runs=GPU_ROUNDS, wait=torch.cuda.synchronize)
    gpu = torch.cuda.get_device_name()
    how = f"forward and backward, {GPU_BATCH} images of {SIDE} px, bf16, compiled; {gpu}"
    figures.at_most(
        "sparse ResNet-50 on a GPU",
        sparse_s / dense_s,
        1.15,
        "x",
        reference=f"dense ResNet-50; {how}",
        runs=GPU_ROUNDS,
    )
    figures.at_least(
        "layers that gather and scatter on a GPU",
        min(gather_s) / sparse_s,
        1.3,
        "x",
        reference=f"sparse ResNet-50; {how}",
        runs=GPU_ROUNDS,
    )
