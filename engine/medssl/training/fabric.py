"""Device, precision and processes by Lightning Fabric."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from medssl.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def build_fabric(device: str = "auto", precision: str = "32-true", *, partial: bool = False) -> Fabric:
    """A launched Fabric: one process, or as many as torchrun started.

    Args:
        device: auto, cpu, cuda or cuda:i; under torchrun each process takes its own GPU.
        precision: 32-true, bf16-mixed or 16-mixed; see `usable_precision`.
        partial: whether a step may leave out parameters, as a mixture of methods does; costs a little.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    from lightning_fabric import Fabric  # noqa: PLC0415  six seconds, and only training needs it

    use_cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if use_cuda and not torch.cuda.is_available():
        raise InputError(f"--device {device}: this machine has no usable GPU; use --device cpu")
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size)))
    devices: int | list[int] = local
    if use_cuda and world_size == 1:
        index = int(device.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise InputError(f"--device {device}: this machine has {torch.cuda.device_count()} GPU(s)")
        devices = [index]
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0:
        _join_anew("nccl" if use_cuda else "gloo")
    several = "ddp_find_unused_parameters_true" if partial else "ddp"
    fabric = Fabric(
        accelerator="cuda" if use_cuda else "cpu",
        devices=devices,
        num_nodes=max(1, world_size // local),
        strategy=several if world_size > 1 else "auto",
        precision=usable_precision(precision, use_cuda=use_cuda),  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def usable_precision(precision: str, *, use_cuda: bool) -> str:
    """What to compute in: the precision asked for, but 32-true for mixed ones on a CPU without AMX.

    Fabric takes bf16-mixed for 16-mixed on every CPU.

    There oneDNN (3.12) computes bf16 weight gradients of convolutions over maps not wider than the kernel
    (2 x 2 x 2 and a kernel of 3: the last stage of a small crop) from memory that nobody wrote.
    """
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch: not known
    sound = use_cuda or capabilities.get("amx_bf16", False)
    return precision if sound else "32-true"


def _join_anew(backend: str) -> None:
    """Make the process group after a restart by torchrun, before Fabric would.

    torchrun keeps one store over all its attempts; the addresses of the processes that died are still in
    it, and the new ones would try to connect to them. Under a name of its own an attempt finds none.
    """
    store, rank, world_size = next(rendezvous("env://"))
    name = f"attempt-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
    attempt = dist.PrefixStore(name, store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=attempt, rank=rank, world_size=world_size)
