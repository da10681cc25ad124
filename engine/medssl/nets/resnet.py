"""ResNet with bottleneck blocks as an encoder of strides 4, 8, 16, 32, under the usual parameter names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.layers.drop_path import DropPath
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn

from medssl.protocols import FeatureLevel

EXPANSION = 4


class ResNetEncoder(nn.Module):
    """ResNet (He et al. 2016) with the stride on the 3-wide convolution, by default ResNet-50.

    Parameters are named ``conv1``, ``bn1``, ``layer1.0.conv1`` ... ``layer4.2.bn3``, as in the public
    checkpoints of SwAV, SparK and LVM-Med.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        blocks: bottleneck blocks of the four layers.
        width: channels of the stem; the levels have 4, 8, 16 and 32 times as many.
        mean: mean per colour channel of the images that weights were trained on. With it, the stem takes as
            many channels and ``in_channels`` is 1: a grey image in [0, 1] is standardised and repeated, an
            image that has the colours already is taken as it is.
        std: their standard deviation.

    Raises:
        ValueError: ``mean`` and ``std`` do not fit each other or ``in_channels``.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int = 1,
        blocks: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        *,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or (mean and in_channels != 1):
            raise ValueError(
                f"mean {mean} and std {std} standardise one grey channel, given {in_channels} channels"
            )
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.config: Mapping[str, Any] = {
            "architecture": "resnet",
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "blocks": list(blocks),
            "width": width,
            "mean": list(mean),
            "std": list(std),
        }
        self.colour = GreyToColour(mean, std) if mean else nn.Identity()
        self.conv1 = Conv[Conv.CONV, spatial_dims](
            len(mean) or in_channels, width, kernel_size=7, stride=2, padding=3, bias=False
        )
        self.bn1 = Norm[Norm.BATCH, spatial_dims](width)
        self.relu = nn.ReLU()
        self.maxpool = Pool[Pool.MAX, spatial_dims](kernel_size=3, stride=2, padding=1)
        before = width
        for number, count in enumerate(blocks):
            inner = width * 2**number
            steps = [1 if number == 0 else 2] + [1] * (count - 1)
            units = []
            for step in steps:
                units.append(_Bottleneck(spatial_dims, before, inner, step))
                before = inner * EXPANSION
            setattr(self, f"layer{number + 1}", nn.Sequential(*units))
        self.levels = tuple(
            FeatureLevel(width * EXPANSION * 2**i, (4 * 2**i,) * spatial_dims) for i in range(len(blocks))
        )
        # Receptive radius in cells of a stage's input, rounded up to its step: the stem and its pooling
        # reach 5 voxels, a 3-wide convolution one cell, a strided one a cell of the level before.
        self.halos = tuple(
            ((4 * count + 8) if i == 0 else 2 * count,) * spatial_dims for i, count in enumerate(blocks)
        )
        names = [(f"layer{i + 1}.",) for i in range(len(blocks))]
        self.stage_names: tuple[tuple[str, ...], ...] = (("conv1.", "bn1.", *names[0]), *names[1:])

    @property
    def stages(self) -> list[nn.Module]:
        """One module per level, each from the level before it."""
        stem = (self.colour, self.conv1, self.bn1, self.relu, self.maxpool)
        return [nn.Sequential(*stem, self._layers[0]), *self._layers[1:]]

    @property
    def _layers(self) -> list[nn.Module]:
        return [self.get_submodule(f"layer{i + 1}") for i in range(len(self.levels))]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature pyramid.

        Args:
            x: (B, in_channels, *S), S a multiple of 32; with ``mean`` also (B, len(mean), *S).

        Returns:
            One (B, C_i, *S / stride_i) per level, finest first.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.colour(x)))))
        pyramid = []
        for layer in self._layers:
            x = layer(x)
            pyramid.append(x)
        return pyramid


class GreyToColour(nn.Module):
    """A grey image as a standardised colour image; holds nothing that belongs into a weights file.

    Args:
        mean: per colour channel.
        std: per colour channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, *S) in [0, 1] -> (B, n, *S); (B, n, *S) stays as it is."""
        if x.shape[1] != 1:
            return x
        shape = (1, -1, *(1,) * (x.ndim - 2))
        return (x - self.mean.view(shape)) / self.std.view(shape)


class _Bottleneck(nn.Module):
    def __init__(self, spatial_dims: int, before: int, inner: int, step: int) -> None:
        super().__init__()
        conv, norm = Conv[Conv.CONV, spatial_dims], Norm[Norm.BATCH, spatial_dims]
        after = inner * EXPANSION
        self.conv1 = conv(before, inner, kernel_size=1, bias=False)
        self.bn1 = norm(inner)
        self.conv2 = conv(inner, inner, kernel_size=3, stride=step, padding=1, bias=False)
        self.bn2 = norm(inner)
        self.conv3 = conv(inner, after, kernel_size=1, bias=False)
        self.bn3 = norm(after)
        self.relu = nn.ReLU()
        self.drop_path = DropPath(0.0)
        self.downsample: nn.Module = nn.Identity()
        if step != 1 or before != after:
            self.downsample = nn.Sequential(
                conv(before, after, kernel_size=1, stride=step, bias=False), norm(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        z: Tensor = self.relu(self.drop_path(self.bn3(self.conv3(y))) + self.downsample(x))
        return z
