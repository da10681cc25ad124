"""What survives pre-training: an encoder, and a decoder where the method trains one."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class Backbone(nn.Module):
    """Encoder and optional decoder under the names that checkpoints use.

    Args:
        encoder: gives a feature pyramid, finest level first (`medssl.protocols.Encoder`).
        decoder: takes the image and the pyramid; None for encoder-only methods.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *S) -> the encoder's pyramid."""
        return cast("list[Tensor]", self.encoder(x))
