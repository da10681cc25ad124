"""Where the tests of the engine compute: the CPU, a stand-in for a GPU, or a GPU (`pytest --device`)."""

from __future__ import annotations

import second_device
import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies import SingleDeviceStrategy

from medssl.inference import device as device_room
from medssl.training import fabric as fabric_room


def compute_on(name: str) -> torch.device:
    """From now on the engine is given this device, whatever it asks for.

    To be called before the tests are imported.

    Args:
        name: ``elsewhere`` or ``cuda``.
    """
    if name == "elsewhere":
        place, build = second_device.install(), build_fabric
    else:
        place, original = torch.device(name), fabric_room.build_fabric

        def build(device: str = "auto", precision: str = "32-true", *, partial: bool = False) -> Fabric:
            return original(name, precision, partial=partial)

    device_room.choose_device = lambda _name="auto": place
    fabric_room.build_fabric = build
    return place


def build_fabric(device: str = "auto", precision: str = "32-true", *, partial: bool = False) -> Fabric:
    """`medssl.training.fabric.build_fabric` for the second device."""
    strategy = SingleDeviceStrategy(torch.device(second_device.NAME, 0), accelerator=_Accelerator())
    mixed = [] if precision == "32-true" else [MixedPrecision(precision, second_device.NAME)]
    fabric = Fabric(strategy=strategy, plugins=mixed)
    fabric.launch()
    return fabric


class _Accelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        """Nothing to do."""
