"""Where the work runs."""

from __future__ import annotations

import torch

from medssl.errors import InputError


def choose_device(name: str = "auto") -> torch.device:
    """The device for a ``--device`` option.

    Args:
        name: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:i".

    Raises:
        InputError: the machine has no such device.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(f"--device {name}: this machine has no usable GPU; use --device cpu")
    device = torch.device("cuda" if name == "auto" else name)
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise InputError(f"--device {name}: this machine has {torch.cuda.device_count()} GPU(s)")
    return device
