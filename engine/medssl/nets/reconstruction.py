"""From the pyramid of an encoder that saw some cells to the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from medssl.nets.backbone import Backbone
from medssl.nets.decoder import PyramidDecoder
from medssl.nets.sparse_layers import VisibleCells
from medssl.nets.sparse_norms import batch_norm, group_norm
from medssl.protocols import Encoder, FeatureLevel


class Densify(nn.Module):
    """Sparse maps made dense: each level is normalised where it is seen, and a token stands elsewhere.

    Tokens are vectors, so they do not decay (`medssl.training.optim.parameter_groups`), as published.

    Args:
        spatial_dims: 2 or 3.
        levels: levels of the encoder.
        norm: "batch" and "instance" count seen positions only; instance norm has no scale (S3D).

    Reference: Tian et al. (SparK), ICLR 2023, section 3.2, equation 4.
    """

    def __init__(
        self,
        spatial_dims: int,
        levels: Sequence[FeatureLevel],
        norm: Literal["batch", "instance", "none"] = "batch",
    ) -> None:
        super().__init__()
        kinds = {"batch": Norm[Norm.BATCH, spatial_dims], "instance": Norm[Norm.INSTANCE, spatial_dims]}
        self.norms = nn.ModuleList(
            nn.Identity() if norm == "none" else kinds[norm](level.channels) for level in levels
        )
        self.tokens = nn.ParameterList(torch.empty(level.channels) for level in levels)
        for token in self.tokens:
            nn.init.trunc_normal_(token, std=0.02, a=-0.02, b=0.02)

    def forward(self, pyramid: Sequence[Tensor], cells: VisibleCells) -> list[Tensor]:
        """Levels (B, C_i, *S_i), 0 where hidden -> same shapes, a token where hidden."""
        dense = []
        for level, norm, token in zip(pyramid, self.norms, self.tokens, strict=True):
            normal = level
            if isinstance(norm, _BatchNorm):
                normal = batch_norm(norm, level, cells)
            elif isinstance(norm, _InstanceNorm):
                normal = group_norm(norm, level, cells)
            filling = token.to(normal.dtype).view(1, -1, *(1,) * (normal.ndim - 2))
            dense.append(torch.where(cells.mask(normal).bool(), normal, filling))
        return dense


class LightReconstruction(nn.Module):
    """The hierarchical decoder of SparK: from the coarsest level up, each finer level is projected and added.

    Per doubling of the grid: transposed convolution (4-wide), 3-wide convolution, batch norm, ReLU6, 3-wide
    convolution to half the channels, batch norm. With strides 4 to 32 and width 768 it is the published
    network (channels 768, 384, 192, 96, 48, 24). A level of stride 1 gets a block that does not double.

    Args:
        spatial_dims: 2 or 3.
        out_channels: channels of the image.
        levels: levels of the encoder, finest first; strides are powers of two.
        width: channels at the coarsest level.

    Raises:
        ValueError: a stride is no power of two, or the width cannot be halved as often.

    Reference: Tian et al. (SparK), ICLR 2023, section 3.2; sizes as in the published code.
    """

    def __init__(
        self, spatial_dims: int, out_channels: int, levels: Sequence[FeatureLevel], width: int = 768
    ) -> None:
        super().__init__()
        path = _path([level.stride for level in levels])
        widths = [width // 2**k for k in range(len(path) + 1)]
        if widths[-1] < 1:
            raise ValueError(f"width {width} cannot be halved {len(path)} times")
        self.skips = tuple(skip for skip, _ in path)
        self.projections = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for k, (skip, step) in enumerate(path):
            self.blocks.append(_UpBlock(spatial_dims, widths[k], widths[k + 1], step))
            if skip is not None:
                self.projections.append(_projection(spatial_dims, levels[skip].channels, widths[k], k == 0))
        self.output = Conv[Conv.CONV, spatial_dims](widths[-1], out_channels, kernel_size=1)
        for part in (self.blocks, self.output):  # projections keep their default, as in the published code
            part.apply(_initialise)

    def forward(self, image: Tensor, pyramid: Sequence[Tensor]) -> Tensor:
        """Reconstruction.

        Args:
            image: (B, C, *S) with hidden voxels filled; not used, reconstructions share their form.
            pyramid: dense levels, finest first.

        Returns:
            (B, out_channels, *S).
        """
        projections = iter(self.projections)
        x: Tensor | None = None
        for skip, block in zip(self.skips, self.blocks, strict=True):
            if skip is not None:
                added = next(projections)(pyramid[skip])
                x = added if x is None else x + added
            x = block(x)
        reconstruction: Tensor = self.output(x)
        return reconstruction


class PyramidReconstruction(nn.Module):
    """The decoder of S3D: every level passes a 3-wide convolution, then a U-Net decoder with its skips.

    Args:
        spatial_dims: 2 or 3.
        out_channels: channels of the image.
        levels: levels of the encoder, finest first.
        decoder: U-Net decoder, shared with the backbone.
    """

    def __init__(
        self, spatial_dims: int, out_channels: int, levels: Sequence[FeatureLevel], decoder: PyramidDecoder
    ) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.projections = nn.ModuleList(
            nn.Identity() if max(level.stride) == 1 else conv(level.channels, level.channels, 3, padding=1)
            for level in levels
        )
        self.decoder = decoder
        self.output = conv(decoder.levels[0].channels, out_channels, kernel_size=1)

    def forward(self, image: Tensor, pyramid: Sequence[Tensor]) -> Tensor:
        """(B, C, *S) with hidden voxels filled and dense levels, finest first -> (B, out_channels, *S)."""
        levels = [layer(level) for layer, level in zip(self.projections, pyramid, strict=True)]
        reconstruction: Tensor = self.output(self.decoder(image, levels)[0])
        return reconstruction


def build_reconstruction(
    backbone: Backbone, decoder: Literal["light", "pyramid"], *, width: int, channels: Sequence[int]
) -> LightReconstruction | PyramidReconstruction:
    """What turns the pyramid of a backbone into an image.

    Args:
        backbone: its encoder says the levels; "pyramid" puts a decoder into it.
        decoder: which form.
        width: of the light form.
        channels: of the decoder of the pyramid form.
    """
    encoder = cast("Encoder", backbone.encoder)
    shape = (encoder.spatial_dims, encoder.in_channels, encoder.levels)
    if decoder == "light":
        return LightReconstruction(*shape, width)
    unet = PyramidDecoder(*shape, channels)
    backbone.decoder = unet
    return PyramidReconstruction(*shape, unet)


class _UpBlock(nn.Module):
    def __init__(self, spatial_dims: int, before: int, after: int, step: tuple[int, ...]) -> None:
        super().__init__()
        conv, norm = Conv[Conv.CONV, spatial_dims], Norm[Norm.BATCH, spatial_dims]
        self.up = Conv[Conv.CONVTRANS, spatial_dims](
            before, before, kernel_size=tuple(4 if s == 2 else 3 for s in step), stride=step, padding=1
        )
        self.convolutions = nn.Sequential(
            conv(before, before, 3, padding=1, bias=False),
            norm(before),
            nn.ReLU6(),
            conv(before, after, 3, padding=1, bias=False),
            norm(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolutions(self.up(x))
        return y


def _projection(spatial_dims: int, before: int, after: int, coarsest: bool) -> nn.Module:
    if coarsest and before == after:
        return nn.Identity()
    size = 1 if coarsest else 3
    layer: nn.Module = Conv[Conv.CONV, spatial_dims](before, after, size, padding=size // 2)
    return layer


def _path(strides: Sequence[tuple[int, ...]]) -> list[tuple[int | None, tuple[int, ...]]]:
    """From the coarsest stride to 1: which level joins, and the factor (1 or 2 per axis) that follows it."""
    current = strides[-1]
    path: list[tuple[int | None, tuple[int, ...]]] = []
    while True:
        skip = strides.index(current) if current in strides else None
        if max(current) == 1:
            return path if skip is None else [*path, (skip, current)]
        finer = [s for s in strides if s != current and all(a <= b for a, b in zip(s, current, strict=True))]
        target = finer[-1] if finer else (1,) * len(current)
        step = tuple(2 if a > b else 1 for a, b in zip(current, target, strict=True))
        if any(a % s for a, s in zip(current, step, strict=True)):
            raise ValueError(f"strides {list(strides)} are no powers of two: the grid cannot be doubled")
        path.append((skip, step))
        current = tuple(a // s for a, s in zip(current, step, strict=True))


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, _ConvTransposeNd):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(layer, _ConvNd):
        nn.init.trunc_normal_(layer.weight, std=0.02)
    if isinstance(layer, _ConvNd) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
