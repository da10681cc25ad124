from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from medssl.nets.synced_norm import SyncedBatchNorm, synchronise_norms


def test_norms_are_replaced_and_keep_their_tensors():
    class Sparse(nn.BatchNorm2d):
        pass

    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()), Sparse(2))
    before = {name: id(value) for name, value in module.named_parameters()}
    keys = module.state_dict().keys()
    module[1].eval()
    synchronise_norms(module)
    assert type(module[1][0]) is SyncedBatchNorm
    assert not module[1][0].training
    assert type(module[2]) is Sparse
    assert {name: id(value) for name, value in module.named_parameters()} == before
    assert module.state_dict().keys() == keys


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5, 6), (4, 3, 2, 3, 4)])
def test_with_one_process_it_is_plain_batch_norm(shape):
    plain = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)](3)
    synced = SyncedBatchNorm(3)
    x = torch.rand(shape)
    assert torch.equal(synced(x), plain(x))
    assert torch.equal(synced.running_var, plain.running_var)


_RANK = """
import sys, torch, torch.distributed as dist
from torch import nn
from medssl.nets.synced_norm import SyncedBatchNorm
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
results = []
for number, shape in enumerate([(5, 3), (5, 3, 4, 6), (5, 3, 2, 3, 4)]):
    x = torch.load(f"{folder}/{number}.pt", weights_only=True)
    mine = (x[:2] if rank == 0 else x[2:]).requires_grad_()
    norm = SyncedBatchNorm(3, momentum=0.3 if number else None)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
    y = norm(mine)
    (y ** 3).sum().backward()
    results.append([y.detach(), mine.grad, norm.weight.grad, norm.running_mean, norm.running_var])
torch.save(results, f"{folder}/result{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    """With unequal shares of the batch: outputs, gradients and running statistics."""
    shapes = [(5, 3), (5, 3, 4, 6), (5, 3, 2, 3, 4)]
    inputs = [torch.rand(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    for number, x in enumerate(inputs):
        torch.save(x, tmp_path / f"{number}.pt")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", _RANK, str(tmp_path), rank], env=environment)
        for rank in ("0", "1")
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    first, second = (torch.load(tmp_path / f"result{rank}.pt", weights_only=True) for rank in range(2))
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    for number, (x, kind) in enumerate(zip(inputs, kinds, strict=True)):
        norm = kind(3, momentum=0.3 if number else None)
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
        y = norm(x.requires_grad_())
        (y**3).sum().backward()
        ours, theirs = first[number], second[number]
        torch.testing.assert_close(torch.cat([ours[0], theirs[0]]), y.detach(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(torch.cat([ours[1], theirs[1]]), x.grad, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(ours[2] + theirs[2], norm.weight.grad, atol=1e-4, rtol=1e-4)
        for rank in (ours, theirs):
            torch.testing.assert_close(rank[3], norm.running_mean)
            torch.testing.assert_close(rank[4], norm.running_var)
