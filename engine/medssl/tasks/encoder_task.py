"""What the tasks on an encoder share: when the encoder learns, and whose statistics it keeps."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.nets.backbone import Backbone


class TaskNetwork(Protocol):
    """A network around an encoder."""

    @property
    def backbone(self) -> Backbone:
        """Encoder, and decoder where there is one."""
        ...

    @property
    def encoder(self) -> nn.Module:
        """The encoder."""
        ...


Network = TypeVar("Network", bound=TaskNetwork)


class EncoderTask(nn.Module, Generic[Network]):
    """A network that begins with its encoder at rest.

    Args:
        network: encoder and the layers of the task.
        frozen_steps: steps during which the encoder does not learn (Wolf et al. 2023: frozen, then
            unfrozen).
        freeze_statistics: keep the running statistics of the encoder: batches of a few patches of one
            scan would spoil them.
    """

    network: Network

    def __init__(self, network: Network, *, frozen_steps: int, freeze_statistics: bool) -> None:
        super().__init__()
        self.network = network
        self.frozen_steps = frozen_steps
        self.freeze_statistics = freeze_statistics
        self.fix_statistics = False
        """Keep the statistics of every batch norm: one patch at a time says too little about them."""

    @property
    def backbone(self) -> Backbone:
        """Encoder, and decoder where there is one."""
        return self.network.backbone

    def train(self, mode: bool = True) -> Self:
        """Training mode; statistics of the encoder, or all of them, stay where they are frozen."""
        super().train(mode)
        if self.freeze_statistics:
            self.network.encoder.eval()
        for module in self.modules() if self.fix_statistics else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def encoder_learns(self, step: int) -> AbstractContextManager[object]:
        """Gradients for the encoder, or none while it is frozen."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and step >= self.frozen_steps)
