"""What the training loop and the cache cost beside the work itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medssl.config.prepare import CacheConfig
from medssl.config.training import TrainingConfig
from medssl.data.cache import Cache, CacheWriter, decode, encode
from medssl.protocols import Batch, Losses
from medssl.store.runs import Run
from medssl.training.fabric import build_fabric
from medssl.training.loop import fit
from medssl.training.optim import build_optimizer

pytestmark = pytest.mark.benchmark

SHAPE, EDGE, CROPS = (300, 512, 512), 64, 200
STEPS, ROUNDS = 30, 15


class Small(nn.Module):
    """A network whose step takes some tens of milliseconds: an overhead would show."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(
            nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 16, 3, stride=2)
        )

    def views(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        return batch.image

    def forward(self, views: torch.Tensor, step: int) -> Losses:
        loss = self.backbone(views).square().mean()
        return Losses(loss, {"error": loss.detach()})


class Same:
    """The same batch for ever."""

    def __init__(self) -> None:
        zeros = torch.zeros(2, dtype=torch.int64)
        self.batch = Batch(torch.rand(2, 1, 40, 40, 40), torch.ones(2, 3), zeros, zeros)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        while True:
            yield self.batch


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other spend CPU time too: from run to run up to a tenth of all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_the_loop_costs_at_most_three_percent(figures, tmp_path: Path) -> None:
    data, fabric = Same(), build_fabric("cpu")
    config = TrainingConfig(steps=10_000, checkpoint_every=10_000)
    bare_module = Small()
    optimizer = build_optimizer(bare_module, config)
    looped = fit(Small(), data, config, fabric=fabric, run=Run.create(tmp_path / "run", config))

    def bare() -> None:
        for step in range(STEPS):
            bare_module(data.batch.image, step).total.backward()
            nn.utils.clip_grad_norm_(bare_module.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def ours() -> None:
        for _ in range(STEPS):
            next(looped)

    ratios = []
    for number in range(ROUNDS + 1):
        seconds = []
        # the two take turns, and turns at going first, so that a busy machine slows both alike
        for work in (bare, ours) if number % 2 else (ours, bare):
            begun = time.process_time()
            work()
            seconds.append(time.process_time() - begun)
        first, second = seconds
        ratios.append(second / first if number % 2 else first / second)
    looped.close()
    ratio = statistics.median(ratios[1:])
    figures.at_most(
        "training loop",
        ratio,
        1.03,
        "x",
        reference="bare forward, backward, clip, step; CPU time of one thread",
        runs=ROUNDS,
    )


def test_crops_come_at_half_the_rate_of_a_mapped_array(figures, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volume = rng.random(SHAPE, dtype=np.float32)
    writer = CacheWriter(tmp_path / "cache", CacheConfig())
    facts = dict.fromkeys(("source", "version", "modality", "task", "group", "subject", "split"), "")
    writer.add(volume, {**facts, "ndim": 3, "spacing": [1.0, 1.0, 1.0]})
    writer.close()
    cache = Cache.open(tmp_path / "cache")
    np.save(tmp_path / "plain.npy", encode(volume, "uint8"))
    plain = np.load(tmp_path / "plain.npy", mmap_mode="r")
    places = [tuple(int(rng.integers(0, n - EDGE + 1)) for n in SHAPE) for _ in range(CROPS)]

    def from_cache() -> None:
        for place in places:
            cache.read(0, place, (EDGE,) * 3)

    def from_array() -> None:
        for place in places:
            decode(plain[tuple(slice(a, a + EDGE) for a in place)])

    ratios = []
    for number in range(ROUNDS + 1):
        seconds = []
        for work in (from_array, from_cache) if number % 2 else (from_cache, from_array):
            begun = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begun)
        first, second = seconds
        ratios.append(first / second if number % 2 else second / first)
    rate = statistics.median(ratios[1:])
    figures.at_least(
        "crops from the cache",
        rate,
        0.5,
        "x",
        reference="rate of 64^3 float crops from a mapped .npy",
        runs=ROUNDS,
    )
