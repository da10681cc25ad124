"""The residual encoder L of nnU-Net, as the OpenMind checkpoints use it: six stages, instance norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.networks.layers.drop_path import DropPath
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn

from medssl.protocols import FeatureLevel

CHANNELS = (32, 64, 128, 256, 320, 320)
BLOCKS = (1, 3, 4, 6, 6, 6)


class ResEncEncoder(nn.Module):
    """Residual pyramid of strides 1, 2, 4, 8, 16, 32 with instance norm and leaky ReLU.

    By default ResEnc-L, 90,296,576 parameters in 3D. Instance norm measures each image by itself, so values
    depend a little on how much of the volume is seen at once, and hardly on an affine map of its intensities.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        channels: channels of each level.
        blocks: residual blocks of each level.

    Raises:
        ValueError: lengths of ``channels`` and ``blocks`` differ.

    Reference: Isensee et al., "nnU-Net revisited", MICCAI 2024; Wald et al., "An OpenMind for 3D medical
    vision self-supervised learning", arXiv:2412.17041.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int = 1,
        channels: Sequence[int] = CHANNELS,
        blocks: Sequence[int] = BLOCKS,
    ) -> None:
        super().__init__()
        if len(channels) != len(blocks):
            raise ValueError(f"channels {channels} and blocks {blocks} must have equal lengths")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.config: Mapping[str, Any] = {
            "architecture": "resenc",
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "channels": list(channels),
            "blocks": list(blocks),
        }
        self.stages = nn.ModuleList(
            _Stage(spatial_dims, channels[max(0, i - 1)], after, count, in_channels if i == 0 else None)
            for i, (after, count) in enumerate(zip(channels, blocks, strict=True))
        )
        self.levels = tuple(FeatureLevel(width, (2**i,) * spatial_dims) for i, width in enumerate(channels))
        # Two 3-wide convolutions a block, the first of a stage reaching one cell of the level before; and
        # the stem.
        self.halos = tuple(
            (2 * count + 1 if i == 0 else 4 * count,) * spatial_dims for i, count in enumerate(blocks)
        )
        self.stage_names = tuple((f"stages.{i}.",) for i in range(len(channels)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature pyramid.

        Args:
            x: (B, in_channels, *S), S a multiple of the coarsest stride.

        Returns:
            One (B, C_i, *S / stride_i) per level, finest first.
        """
        pyramid = []
        for stage in self.stages:
            x = stage(x)
            pyramid.append(x)
        return pyramid


class _ConvNorm(nn.Module):
    def __init__(
        self,
        spatial_dims: int,
        before: int,
        after: int,
        *,
        kernel_size: int = 3,
        step: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv = Conv[Conv.CONV, spatial_dims](
            before, after, kernel_size=kernel_size, stride=step, padding=kernel_size // 2, bias=bias
        )
        self.norm = Norm[Norm.INSTANCE, spatial_dims](after, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y


class _Block(nn.Module):
    def __init__(self, spatial_dims: int, before: int, after: int, step: int) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(spatial_dims, before, after, step=step)
        self.conv2 = _ConvNorm(spatial_dims, after, after)
        self.act = nn.LeakyReLU(0.01)
        self.drop_path = DropPath(0.0)
        skip: list[nn.Module] = [Pool[Pool.AVG, spatial_dims](step, step)] if step > 1 else []
        if before != after:
            skip.append(_ConvNorm(spatial_dims, before, after, kernel_size=1, bias=False))
        self.skip = nn.Sequential(*skip)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop_path(self.conv2(self.act(self.conv1(x)))) + self.skip(x))
        return y


class _Stage(nn.Module):
    """Stem (first stage only) and blocks."""

    def __init__(
        self, spatial_dims: int, before: int, after: int, count: int, in_channels: int | None
    ) -> None:
        super().__init__()
        self.stem: nn.Module = nn.Identity()
        if in_channels is not None:
            self.stem = nn.Sequential(_ConvNorm(spatial_dims, in_channels, after), nn.LeakyReLU(0.01))
        steps = [1 if in_channels is not None else 2] + [1] * (count - 1)
        self.blocks = nn.Sequential(
            *(_Block(spatial_dims, before if i == 0 else after, after, step) for i, step in enumerate(steps))
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks(self.stem(x))
        return y
