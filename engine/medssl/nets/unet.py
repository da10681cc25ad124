"""The U-Net of Models Genesis: an encoder of strides 1, 2, 4, 8, its decoder and its output layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn

from medssl.protocols import FeatureLevel

WIDTH = 32
"""Channels of the first convolution; the levels have 2, 4, 8 and 16 times as many."""


class GenesisEncoder(nn.Module):
    """The contracting path: two 3-wide convolutions per level, max-pooling between the levels.

    Names of parameters and their number (7,027,776 in 3D) are those of the published network. There, batch
    norm uses the statistics of the batch at evaluation too; here it is ordinary batch norm: in training mode
    (`nn.Module.train`) the result is that of the published network, in evaluation mode running statistics
    make it independent of batch and tile.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        width: channels of the first convolution.

    Reference: Zhou et al., "Models Genesis", Medical Image Analysis 2021, section 3.3.
    """

    def __init__(self, spatial_dims: int, in_channels: int = 1, width: int = WIDTH) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.config: Mapping[str, Any] = {
            "architecture": "genesis",
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "width": width,
        }
        self.down_tr64 = _TwoConvolutions(spatial_dims, in_channels, width, 2 * width)
        self.down_tr128 = _TwoConvolutions(spatial_dims, 2 * width, 2 * width, 4 * width)
        self.down_tr256 = _TwoConvolutions(spatial_dims, 4 * width, 4 * width, 8 * width)
        self.down_tr512 = _TwoConvolutions(spatial_dims, 8 * width, 8 * width, 16 * width)
        self.maxpool = Pool[Pool.MAX, spatial_dims](2)
        self.levels = tuple(FeatureLevel(2**i * 2 * width, (2**i,) * spatial_dims) for i in range(4))
        # Receptive radius per stage in cells of its input: two convolutions, after a pooling of 2.
        self.halos = tuple((2 * step,) * spatial_dims for step in (1, 2, 2, 2))
        self.stage_names = tuple((f"down_tr{n}.",) for n in (64, 128, 256, 512))

    @property
    def stages(self) -> list[nn.Module]:
        """One module per level, each from the level before it."""
        deeper = (self.down_tr128, self.down_tr256, self.down_tr512)
        return [self.down_tr64, *(nn.Sequential(self.maxpool, down) for down in deeper)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature pyramid.

        Args:
            x: (B, in_channels, *S), S a multiple of 8.

        Returns:
            (B, 64, *S), (B, 128, *S / 2), (B, 256, *S / 4) and (B, 512, *S / 8).
        """
        first = self.down_tr64(x)
        second = self.down_tr128(self.maxpool(first))
        third = self.down_tr256(self.maxpool(second))
        return [first, second, third, self.down_tr512(self.maxpool(third))]


class GenesisDecoder(nn.Module):
    """The expanding path: transposed convolution, skip by concatenation, two 3-wide convolutions.

    Args:
        spatial_dims: 2 or 3.
        width: as that of the encoder.
    """

    def __init__(self, spatial_dims: int, width: int = WIDTH) -> None:
        super().__init__()
        self.config: Mapping[str, Any] = {"architecture": "genesis", "width": width}
        self.up_tr256 = _Up(spatial_dims, 16 * width, 8 * width)
        self.up_tr128 = _Up(spatial_dims, 8 * width, 4 * width)
        self.up_tr64 = _Up(spatial_dims, 4 * width, 2 * width)
        self.levels = tuple(FeatureLevel(2**i * 2 * width, (2**i,) * spatial_dims) for i in range(3))

    def forward(self, image: Tensor, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Decoded maps.

        Args:
            image: not used; decoders share their form.
            pyramid: levels of `GenesisEncoder`, finest first.

        Returns:
            (B, 64, *S), (B, 128, *S / 2) and (B, 256, *S / 4).
        """
        first, second, third, deepest = pyramid
        coarse = self.up_tr256(deepest, third)
        middle = self.up_tr128(coarse, second)
        return [self.up_tr64(middle, first), middle, coarse]


class RestorationOutput(nn.Module):
    """1x1 convolution and sigmoid: a restored image in (0, 1).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the decoded map.
        out_channels: channels of the image.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int = 1) -> None:
        super().__init__()
        self.final_conv = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, *S) -> (B, out_channels, *S)."""
        restored: Tensor = self.final_conv(x)
        return restored.sigmoid()


class _ConvNormAct(nn.Module):
    def __init__(self, spatial_dims: int, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = Conv[Conv.CONV, spatial_dims](before, after, kernel_size=3, padding=1)
        self.bn1 = Norm[Norm.BATCH, spatial_dims](after)

    def forward(self, x: Tensor) -> Tensor:
        normal: Tensor = self.bn1(self.conv1(x))
        return normal.relu()


class _TwoConvolutions(nn.Module):
    def __init__(self, spatial_dims: int, before: int, between: int, after: int) -> None:
        super().__init__()
        self.ops = nn.Sequential(
            _ConvNormAct(spatial_dims, before, between), _ConvNormAct(spatial_dims, between, after)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.ops(x)
        return y


class _Up(_TwoConvolutions):
    def __init__(self, spatial_dims: int, below: int, skip: int) -> None:
        super().__init__(spatial_dims, below + skip, skip, skip)
        self.up_conv = Conv[Conv.CONVTRANS, spatial_dims](below, below, kernel_size=2, stride=2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        y: Tensor = self.ops(torch.cat([self.up_conv(x), skip], dim=1))
        return y
