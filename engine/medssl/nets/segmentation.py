"""The network that gives every voxel a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nets.backbone import Backbone
from medssl.nets.decoder import PyramidDecoder
from medssl.nets.dense import resize
from medssl.nets.encoders import ResidualEncoder


class SegmentationNetwork(nn.Module):
    """Encoder, pyramid decoder and a 1x1 convolution to the classes.

    State: ``backbone.encoder.*``, ``backbone.decoder.*`` and ``segmentation.*``.

    Args:
        encoder: gives the pyramid.
        classes: number of classes K, at least 2.
        channels: channels of the decoder, see `PyramidDecoder`.
        supervised_levels: decoded levels with logits of their own while training, full resolution
            first; 1 means no deep supervision.
    """

    def __init__(
        self,
        encoder: ResidualEncoder,
        classes: int,
        channels: Sequence[int] = (12, 24, 48, 64),
        supervised_levels: int = 1,
    ) -> None:
        super().__init__()
        decoder = PyramidDecoder(encoder.spatial_dims, encoder.in_channels, encoder.levels, channels)
        self.backbone = Backbone(encoder, decoder)
        self.segmentation = nn.ModuleList(
            Conv[Conv.CONV, encoder.spatial_dims](level.channels, classes, kernel_size=1)
            for level in decoder.levels[:supervised_levels]
        )
        self.config: Mapping[str, Any] = {
            "classes": classes,
            "channels": list(channels),
            "supervised_levels": supervised_levels,
        }

    @property
    def encoder(self) -> ResidualEncoder:
        """The bare encoder."""
        return cast("ResidualEncoder", self.backbone.encoder)

    @property
    def multiple(self) -> tuple[int, ...]:
        """Voxels per axis come in multiples of this (the coarsest stride)."""
        return self.encoder.levels[-1].stride

    def classify(self, x: Tensor, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Logits of the supervised levels, each brought to full resolution (B, K, *S).

        Args:
            x: (B, C, *S), S a multiple of the coarsest stride.
            pyramid: the encoder's levels on it.
        """
        decoded = cast("PyramidDecoder", self.backbone.decoder)(x, pyramid)
        return [
            resize(head(level), x.shape[2:]) if index else head(level)
            for index, (head, level) in enumerate(zip(self.segmentation, decoded, strict=False))
        ]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> logits (B, K, *S), S of any size: padded with zeros to the stride inside."""
        shape = x.shape[2:]
        missing = [-n % step for n, step in zip(shape, self.multiple, strict=True)]
        if any(missing):
            x = F.pad(x, [side for n in reversed(missing) for side in (0, n)])
        full = self.classify(x, self.backbone(x))[0]
        for axis, size in enumerate(shape, start=2):
            full = full.narrow(axis, 0, size)
        return full
