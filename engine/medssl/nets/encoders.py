"""The residual encoder family, built from MONAI blocks; every encoder by name and from a header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from monai.networks.blocks.convolutions import Convolution, ResidualUnit
from monai.networks.layers.drop_path import DropPath
from torch import Tensor, nn

from medssl.nets.resenc import ResEncEncoder
from medssl.nets.resnet import ResNetEncoder
from medssl.nets.unet import GenesisEncoder
from medssl.protocols import FeatureLevel

ENCODERS: dict[str, dict[str, Any]] = {
    "tiny": {"channels": (8, 24, 48, 80), "blocks": (1, 1, 1, 1), "padding": "replicate"},
    "small": {"channels": (16, 48, 128, 128), "blocks": (1, 2, 2, 1), "padding": "replicate"},
    "base": {"channels": (32, 96, 192, 320), "blocks": (1, 2, 2, 2), "padding": "replicate"},
    "genesis": {"architecture": "genesis"},
    "resnet50": {"architecture": "resnet"},
    "resenc-l": {"architecture": "resenc"},
}
"""Encoders by name. In the residual family the stride-2 stage is thin: it costs most and is not in the
dense feature."""


class ResidualEncoder(nn.Module):
    """Residual feature pyramid of strides 2, 4, 8, 16 in 2D or 3D.

    Every stage halves the grid by a convolution whose kernel equals its stride, so cell ``i`` of a level
    of stride ``s`` covers exactly the voxels ``[s i, s i + s)``: flips and quarter turns of the input
    are flips and quarter turns of every level, and tiles that begin on a multiple of the stride agree.
    Normalisation is batch norm with running statistics: at inference no value depends on the tile.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        channels: channels of each level, finest first.
        blocks: residual units (two 3-wide convolutions each) per stage.
        strides: stride of each stage, an int or one per axis; default 2 everywhere.
        padding: what the convolutions see beyond the border: "replicate" goes on with the last cell, so that
            features hardly feel how far the border of the scan is; "zeros" marks it.

    Raises:
        ValueError: lengths of ``channels``, ``blocks`` and ``strides`` differ.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int = 1,
        channels: Sequence[int] = ENCODERS["small"]["channels"],
        blocks: Sequence[int] = ENCODERS["small"]["blocks"],
        strides: Sequence[int | Sequence[int]] | None = None,
        *,
        padding: Literal["zeros", "replicate"] = "zeros",
    ) -> None:
        super().__init__()
        per_stage = [2] * len(channels) if strides is None else list(strides)
        if not len(channels) == len(blocks) == len(per_stage):
            raise ValueError(
                f"channels {channels}, blocks {blocks} and strides {strides} must have equal lengths"
            )
        steps = [(s,) * spatial_dims if isinstance(s, int) else tuple(s) for s in per_stage]
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.config: Mapping[str, Any] = {
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "channels": list(channels),
            "blocks": list(blocks),
            "strides": [list(step) for step in steps],
            "padding": padding,
        }
        self.stages = nn.ModuleList(
            _stage(spatial_dims, before, after, step, count)
            for before, after, step, count in zip(
                (in_channels, *channels[:-1]), channels, steps, blocks, strict=True
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d) and padding != "zeros":
                module.padding_mode = padding
                # what the constructor derives from the mode; MONAI's blocks do not pass it one
                widths = cast("tuple[int, ...]", module.padding)
                module._reversed_padding_repeated_twice = [p for p in reversed(widths) for _ in range(2)]
        levels, stride = [], (1,) * spatial_dims
        for width, step in zip(channels, steps, strict=True):
            stride = tuple(a * b for a, b in zip(stride, step, strict=True))
            levels.append(FeatureLevel(width, stride))
        self.levels = tuple(levels)
        self.stage_names = tuple((f"stages.{i}.",) for i in range(len(channels)))
        # Receptive radius of each stage in cells of its own input, per axis: two convolutions a block,
        # each reaching one output cell, i.e. one step of the stage.
        self.halos = tuple(
            tuple(2 * count * axis for axis in step) for count, step in zip(blocks, steps, strict=True)
        )

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


def _stage(spatial_dims: int, before: int, after: int, step: tuple[int, ...], count: int) -> nn.Sequential:
    down = Convolution(
        spatial_dims, before, after, strides=step, kernel_size=step, padding=0, adn_ordering="NA",
        act="relu", norm="batch", bias=False,
    )  # fmt: skip
    units = [
        ResidualUnit(
            spatial_dims, after, after, subunits=2, adn_ordering="NA", act="relu", norm="batch", bias=False
        )
        for _ in range(count)
    ]
    return nn.Sequential(down, *units)


AnyEncoder = ResidualEncoder | GenesisEncoder | ResNetEncoder | ResEncEncoder
"""An encoder as weights files describe it. Beside its ``levels`` it has ``stages`` (one module per level,
from the level before), their receptive radius ``halos``, the prefixes of their parameters ``stage_names``,
and ``config``, its arguments."""

_ARCHITECTURES: dict[str, type[AnyEncoder]] = {
    "residual": ResidualEncoder,
    "genesis": GenesisEncoder,
    "resnet": ResNetEncoder,
    "resenc": ResEncEncoder,
}


def build_encoder(
    name: str, spatial_dims: int, in_channels: int = 1, *, padding: str | None = None
) -> AnyEncoder:
    """An encoder by name.

    Args:
        name: one of `ENCODERS`.
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        padding: of the residual family, in place of its own; the published architectures keep theirs.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in ENCODERS:
        raise ValueError(f"unknown encoder {name!r}: choose from {', '.join(ENCODERS)}")
    settings = dict(ENCODERS[name])
    if padding is not None and "padding" in settings:
        settings["padding"] = padding
    return restore_encoder({"spatial_dims": spatial_dims, "in_channels": in_channels, **settings})


def set_drop_path(encoder: nn.Module, rate: float) -> None:
    """Leave out residual branches at random while training, the deeper the more often.

    Nothing that belongs to the weights: an encoder that is restored has none.

    Args:
        encoder: changed in place.
        rate: probability at the last block; it rises linearly from 0 at the first one.

    Raises:
        ValueError: the encoder has no blocks that can be left out.

    Reference: Huang et al., "Deep networks with stochastic depth", ECCV 2016, equation 4.
    """
    blocks = [module for module in encoder.modules() if isinstance(module, DropPath)]
    if rate and not blocks:
        raise ValueError("drop path is offered by resnet50 and resenc-l")
    for index, block in enumerate(blocks):
        block.drop_prob = rate * index / max(1, len(blocks) - 1)


def restore_encoder(config: Mapping[str, Any]) -> AnyEncoder:
    """The encoder that a ``config`` attribute, or the header of a weights file, describes.

    Args:
        config: arguments of the encoder; ``architecture`` (residual by default) chooses its class, ``name``
            is not used.

    Raises:
        ValueError: the architecture is unknown.
        TypeError: the arguments are not those of the architecture.
    """
    arguments = {key: value for key, value in config.items() if key not in ("name", "architecture")}
    architecture = config.get("architecture", "residual")
    if architecture not in _ARCHITECTURES:
        raise ValueError(
            f"unknown architecture {architecture!r}: this version has {', '.join(_ARCHITECTURES)}"
        )
    return _ARCHITECTURES[architecture](**arguments)
