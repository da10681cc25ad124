"""Two processes with half a batch each learn what one with the whole batch learns."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

# One program for one process and for two, so that both do the same.
_PROGRAM = """
import sys
from dataclasses import fields, is_dataclass, replace

import torch
import torch.distributed as dist

from medssl.config.hybrid import HybridConfig
from medssl.methods import METHODS
from medssl.methods.hybrid import Hybrid
from medssl.methods.mixture import Mixture
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import ResidualEncoder
from medssl.nets.synced_norm import synchronise_norms
from medssl.protocols import Batch

folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)

PAIR = {"views": {"size": 16}, "hidden": 8, "dim": 6}
CLUSTERS = {"prototypes": 8, "hidden": 8, "dim": 6, "queue_length": 12, "queue_start": 1}
SIZES = {"global_size": 16, "local_size": 16, "local_count": 1}
SWAV = {"crops": CLUSTERS, "freeze_prototypes_steps": 0, **SIZES}
SETTINGS = {
    "simclr": {**PAIR, "mask_same_volume": True},
    "moco": {**PAIR, "queue_length": 20, "shuffle_groups": 1},
    "byol": PAIR,
    "swav": SWAV,
    # crops that overlap little: the processes see different numbers of cells
    "cells": {**SWAV, "cells": CLUSTERS, "cells_per_crop": 24, "global_scale": (0.1, 0.25)},
    "hybrid": SWAV,
    "mixture": PAIR,
    "hssl": {
        "stage": "joint",
        "views": PAIR["views"],
        "dim": 6,
        "tasks": 2,
        "groups": 2,
        "decoder_channels": [4, 4, 4, 4],
    },
    "lvm-med": {"nodes": 4, "neighbours": 2, "dim": 6, "size": 16, "gumbel_scale": 0.0, "cells": 8},
    "models-genesis": {"windows": 20},
    "spark": {"cell": 8, "width": 64, "ratio": 0.5},
    "mae": {"cell": 8, "width": 64, "ratio": 0.5},
}


def share(value, count):
    '''The part of this process of everything whose first axis is the batch, or its graphs of 4.'''
    if isinstance(value, torch.Tensor):
        value = value.double() if value.is_floating_point() else value  # rounding would hide mistakes
        return value.chunk(world)[rank] if value.ndim and len(value) in (count, count // 4) else value
    if is_dataclass(value):
        return replace(value, **{f.name: share(getattr(value, f.name), count) for f in fields(value)})
    if isinstance(value, (list, tuple)):
        return type(value)(share(part, count) for part in value)
    return value


def result(name, n):
    torch.manual_seed(0)
    entry = METHODS[{"hybrid": "swav", "cells": "swav", "mixture": "simclr"}.get(name, name)]
    backbone = Backbone(ResidualEncoder(n, 1, (4, 5, 6, 6), (1, 1, 1, 1)))
    method = entry.build(entry.config_class().model_validate(SETTINGS[name]), backbone, 2)
    if name == "hybrid":
        config = HybridConfig(class_weight=1.0, dense_weight=1.0, size=16)
        method = Hybrid(method, config, classes=2, labels=2)
    if name == "mixture":  # the second step, whose gradients are compared, is the synthesis's
        synthesis = METHODS["synthesis"]
        sizes = {"global_scale": (0.1, 0.25), "global_size": 16, "cells_per_crop": 20, "hidden": 8, "dim": 6}
        config = synthesis.config_class().model_validate(sizes)
        method = Mixture(method, synthesis.build(config, backbone, 2), share=0.5)
    synchronise_norms(method.train().double())
    if name == "hssl":  # its classification is single precision by design, the class weights with it
        method.task_share, method.group_share = method.task_share.float(), method.group_share.float()
    if name == "lvm-med":  # graphs are single precision by design
        method.messages.float()
    count = 8
    image = torch.rand(count, 1, *(16,) * n, generator=torch.Generator().manual_seed(1))
    number = torch.arange(count)
    label = (image > 0.5).long()
    label[:3] = -1
    classes = torch.stack([number % 2, 1 - number % 2], dim=1)
    classes[5:] = -1
    domain = (number > 4).long()  # the second process sees more of one than the first
    targets = {"class": classes, "task": domain, "group": domain}
    batch = Batch(
        image, torch.ones(count, n), (number > 2).long(), number // 2, label=label, targets=targets
    )
    losses = []
    for step in range(2):
        views = method.views(batch, torch.Generator().manual_seed(step))
        step_losses = method(share(views, count), step)
        losses.append(step_losses.total.detach())
    step_losses.total.backward()
    gradients = {k: p.grad for k, p in method.named_parameters() if p.grad is not None}
    losses = torch.stack(losses)
    if world > 1:  # what DDP does, and the mean loss
        for tensor in (losses, *gradients.values()):
            dist.all_reduce(tensor)
            tensor /= world
    return {"losses": losses, "gradients": gradients, "buffers": dict(method.named_buffers())}


results = {f"{name}-{n}": result(name, n) for name in SETTINGS for n in (2, 3)}
torch.save(results, f"{folder}/{world}-{rank}.pt")
if world > 1:
    dist.destroy_process_group()
"""

METHODS = (
    "simclr",
    "moco",
    "byol",
    "swav",
    "cells",
    "hybrid",
    "mixture",
    "hssl",
    "lvm-med",
    "models-genesis",
    "spark",
    "mae",
)
CASES = [f"{name}-{n}" for name in METHODS for n in (2, 3)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory):
    """Of one process alone, then of both processes: {case: {losses, gradients, buffers}}."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    for world in (1, 2):
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(folder), str(rank), str(world)], env=environment
            )
            for rank in range(world)
        ]
        assert [rank.wait(timeout=500) for rank in ranks] == [0] * world
    return [torch.load(folder / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1")]


def assert_equal(ours, theirs) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], atol=1e-6, rtol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_state_are_those_of_the_whole_batch(results, case: str) -> None:
    """Contrast and codes see the samples of all processes, and every process ends with the same state."""
    one, first, second = (result[case] for result in results)
    torch.testing.assert_close(first["losses"], one["losses"], atol=1e-7, rtol=1e-7)
    for both in (first, second):
        assert_equal(both["buffers"], one["buffers"])
        assert_equal(both["gradients"], one["gradients"])
    assert any(gradient.abs().sum() > 0 for gradient in one["gradients"].values())


@pytest.mark.slow
def test_queues_are_shared(results) -> None:
    one, *both = (result["swav-3"]["buffers"] for result in results)
    assert one["crops.queued"].tolist() == [[6, 10], [6, 10]]
    assert all(torch.equal(rank["crops.queued"], one["crops.queued"]) for rank in both)
