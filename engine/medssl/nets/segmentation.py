"""The network that gives every voxel a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nets.backbone import Backbone
from medssl.nets.decoder import Decoder, restore_decoder
from medssl.nets.dense import DenseFeatures, resize
from medssl.nets.encoders import AnyEncoder
from medssl.protocols import FeatureLevel


class LinearLogits(nn.Module):
    """Logits straight from the pyramid: what a linear probe computes, as a part of a network that learns.

    Levels of stride >= 4, each of unit length, times one weight per class; brought to full resolution as
    logits; plus weights on the intensity and on the intensity smoothed over about one voxel.

    Args:
        levels: levels of the encoder, finest first.
        classes: number of classes K.
    """

    def __init__(self, levels: Sequence[FeatureLevel], classes: int) -> None:
        super().__init__()
        dense = DenseFeatures(levels)
        self.used = dense.used
        self.widths = [level.channels for level in dense.levels]
        self.weight = nn.Parameter(torch.zeros(classes, dense.in_channels))
        self.intensity = nn.Parameter(torch.zeros(classes, 2))
        self.bias = nn.Parameter(torch.zeros(classes))

    @torch.no_grad()
    def start_from(self, dense: DenseFeatures, weight: Tensor, bias: Tensor) -> None:
        """Take over a linear probe.

        Args:
            dense: the projected feature that the probe was fitted on.
            weight: (K, D + 2) on the D projected channels, the intensity and the smoothed intensity.
            bias: (K,).
        """
        features = weight[:, :-2].to(dense.weight)
        self.weight.copy_(features @ dense.weight)
        self.bias.copy_(bias.to(dense.weight) - features @ dense.offset())
        self.intensity.copy_(weight[:, -2:])

    def forward(self, x: Tensor, pyramid: Sequence[Tensor]) -> Tensor:
        """(B, C, *S) and its pyramid -> logits (B, K, *S)."""
        weights = torch.split(self.weight, self.widths, dim=1)
        cells = pyramid[self.used[0]].shape[2:]
        logits = x.new_zeros(())
        for index, weight in zip(self.used, weights, strict=True):
            level = F.normalize(pyramid[index], dim=1)
            part = torch.einsum("kc,bcn->bkn", weight, level.flatten(2))
            logits = logits + resize(part.reshape(*part.shape[:2], *level.shape[2:]), cells)
        logits = resize(logits, x.shape[2:])
        shape = (1, -1, *(1,) * (x.ndim - 2))
        raw, blurred = self.intensity[:, 0].view(shape), self.intensity[:, 1].view(shape)
        return logits + raw * x[:, :1] + blurred * self.smoothed(x) + self.bias.view(shape)

    def smoothed(self, x: Tensor) -> Tensor:
        """The first channel, (B, 1, *S), after two boxes of 3 voxels: standard deviation 1.15 voxels."""
        pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
        smooth = x[:, :1]
        for _ in range(2):
            smooth = pool(smooth, 3, stride=1, padding=1, count_include_pad=False)
        return smooth


class SegmentationNetwork(nn.Module):
    """Encoder, U-Net decoder and a 1x1 convolution to the classes.

    State: ``backbone.encoder.*``, ``backbone.decoder.*``, ``segmentation.*`` and ``linear.*``. With the
    linear part the decoder's logits begin at zero: training begins where the linear probe ended.

    Args:
        encoder: gives the pyramid.
        classes: number of classes K, at least 2.
        channels: channels of the decoder, see `PyramidDecoder`.
        decoder: config of another decoder in its place, see `restore_decoder`.
        supervised_levels: decoded levels with logits of their own while training, full resolution
            first; 1 means no deep supervision.
        has_linear: add `LinearLogits` to the logits of full resolution.
    """

    def __init__(
        self,
        encoder: AnyEncoder,
        classes: int,
        channels: Sequence[int] = (12, 24, 48, 64),
        supervised_levels: int = 1,
        *,
        has_linear: bool = False,
        decoder: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        decodes = restore_decoder(decoder or {"channels": channels}, encoder)
        self.backbone = Backbone(encoder, decodes)
        self.segmentation = nn.ModuleList(
            Conv[Conv.CONV, encoder.spatial_dims](level.channels, classes, kernel_size=1)
            for level in decodes.levels[:supervised_levels]
        )
        self.linear = LinearLogits(encoder.levels, classes) if has_linear else None
        if has_linear:
            for parameter in self.segmentation.parameters():
                nn.init.zeros_(parameter)
        self.config: Mapping[str, Any] = {
            "classes": classes,
            "decoder": dict(decodes.config),
            "supervised_levels": supervised_levels,
            "has_linear": has_linear,
        }

    @property
    def encoder(self) -> AnyEncoder:
        """The bare encoder."""
        return cast("AnyEncoder", self.backbone.encoder)

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
        decoded = cast("Decoder", self.backbone.decoder)(x, pyramid)
        logits = [
            resize(head(level), x.shape[2:]) if index else head(level)
            for index, (head, level) in enumerate(zip(self.segmentation, decoded, strict=False))
        ]
        if self.linear is not None:
            logits[0] = logits[0] + self.linear(x, pyramid)
        return logits

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
