from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from medssl.losses.gathering import gather_rows, world_group


def test_one_process_keeps_its_rows():
    x = torch.rand(3, 2)
    assert gather_rows(x) is x
    assert world_group() is None


_RANK = """
import sys, torch, torch.distributed as dist
from medssl.losses.gathering import gather_rows
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
whole = torch.arange(10.0).view(5, 2)
x = (whole[:2] if rank == 0 else whole[2:]).requires_grad_()
rows = gather_rows(x)
((rank + 1) * rows.square().sum()).backward()
numbers = gather_rows(torch.tensor([rank] * (2 + rank)))
torch.save([rows.detach(), x.grad, numbers], f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_rows_of_two_processes_and_their_gradients(tmp_path):
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", _RANK, str(tmp_path), rank], env=environment)
        for rank in ("0", "1")
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    whole = torch.arange(10.0).view(5, 2)
    for rank, mine in enumerate((slice(0, 2), slice(2, 5))):
        rows, gradient, numbers = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(rows, whole)
        assert torch.equal(gradient, 3 * 2 * whole[mine])  # of both processes: 1 + 2
        assert numbers.tolist() == [0, 0, 1, 1, 1]
