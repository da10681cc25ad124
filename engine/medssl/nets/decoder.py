"""A U-Net decoder over any feature pyramid, up to full resolution; decoders by config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import Tensor, nn

from medssl.nets.dense import resize
from medssl.nets.encoders import AnyEncoder
from medssl.nets.unet import GenesisDecoder
from medssl.protocols import FeatureLevel


class PyramidDecoder(nn.Module):
    """From the coarsest level upwards: reduce, upsample, join with the skip, convolve.

    The last step joins the image itself, so that edges are exact to the voxel although the finest
    level of the encoder may have stride 2. Upsampling is linear and box to box: cells keep the voxels
    they cover, whatever the stride of each axis.

    Convolutions are followed by batch norm. A norm over the channels of each voxel does not serve here: it
    leaves what all voxels have in common, and a new decoder then stays at the prior of the classes (two
    patches could not be learned by heart). Running statistics lag behind the weights in short runs, so
    that they are measured anew before a network is judged (`medssl.training.calibration`).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        levels: levels of the encoder, finest first.
        channels: channels of the decoded maps, stride 1 first, then one per level but the coarsest; the last
            one also stands for what a deeper encoder has beyond it.

    Raises:
        ValueError: ``channels`` has more entries than there are decoded maps.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        levels: Sequence[FeatureLevel],
        channels: Sequence[int] = (12, 24, 48, 64),
    ) -> None:
        super().__init__()
        if not 0 < len(channels) <= len(levels):
            raise ValueError(f"{len(levels)} levels decode to as many maps, given channels {channels}")
        channels = [*channels, *[channels[-1]] * (len(levels) - len(channels))]
        self.config: Mapping[str, Any] = {"channels": list(channels)}
        skips = [FeatureLevel(in_channels, (1,) * spatial_dims), *levels[:-1]]
        self.levels = tuple(
            FeatureLevel(width, skip.stride) for width, skip in zip(channels, skips, strict=True)
        )
        self.reduce = nn.ModuleList()
        self.join = nn.ModuleList()
        for width, below, skip in zip(channels, [*channels[1:], levels[-1].channels], skips, strict=True):
            self.reduce.append(_convolution(spatial_dims, below, width, kernel_size=1))
            self.join.append(
                nn.Sequential(
                    _convolution(spatial_dims, width + skip.channels, width, kernel_size=3),
                    _convolution(spatial_dims, width, width, kernel_size=3),
                )
            )

    def forward(self, image: Tensor, pyramid: Sequence[Tensor], finest: int = 0) -> list[Tensor]:
        """Decoded maps.

        Args:
            image: (B, in_channels, *S).
            pyramid: levels of the encoder on it, finest first.
            finest: the last level that is decoded; those before it are left out, and their time.

        Returns:
            One (B, C_i, *S / stride_i) per decoded level, ``finest`` (0: full resolution) first.
        """
        x, decoded = pyramid[-1], []
        skips = [image, *pyramid[:-1]]
        for level in range(len(skips) - 1, finest - 1, -1):
            skip, reduce, join = skips[level], self.reduce[level], self.join[level]
            x = resize(reduce(x), skip.shape[2:])  # reduced first: interpolation and 1x1 commute
            x = join(torch.cat([x, skip], dim=1))
            decoded.append(x)
        return decoded[::-1]


Decoder = PyramidDecoder | GenesisDecoder
"""What takes an image and its pyramid to decoded maps, full resolution first."""


def restore_decoder(config: Mapping[str, Any], encoder: AnyEncoder) -> Decoder:
    """The decoder that a ``config`` attribute, or the header of a weights file, describes.

    Args:
        config: arguments of the decoder; ``architecture`` "genesis" is that of Models Genesis.
        encoder: gives the pyramid that is decoded.

    Raises:
        ValueError: the decoder does not fit the encoder.
    """
    if config.get("architecture") != "genesis":
        return PyramidDecoder(encoder.spatial_dims, encoder.in_channels, encoder.levels, config["channels"])
    decoder = GenesisDecoder(encoder.spatial_dims, config["width"])
    if encoder.levels[: len(decoder.levels)] != decoder.levels:
        raise ValueError("the decoder of Models Genesis needs its encoder, of the same width")
    return decoder


def _convolution(spatial_dims: int, before: int, after: int, kernel_size: int) -> nn.Module:
    block: nn.Module = Convolution(
        spatial_dims, before, after, kernel_size=kernel_size, adn_ordering="NA", act="relu", norm="batch",
        bias=False,
    )  # fmt: skip
    return block
