"""The network that finds boxes: a feature pyramid and a dense head on each of its fine levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nets.backbone import Backbone
from medssl.nets.encoders import AnyEncoder

PRIOR = 0.01
"""Score of every cell at the start: else the many empty cells drown the first steps (RetinaNet, 4.1)."""

_GAIN = 4.0
"""Scores are so many times the last map: with Adam, whose steps have one size, they grow in time."""

_LOG_PRIOR = math.log(2.5)  # edges in cells at the start, about those of a box on its level

_LOG_EDGE = 4.0  # largest logarithm of an edge in cells of its level: 55 cells


@dataclass(frozen=True)
class DenseBoxes:
    """What one level says in every cell.

    Args:
        logits: (B, K, *F) of a box of class k being centred here.
        edges: (B, 2 n, *F): offset of the centre from the middle of the cell, and logarithm of the edges,
            both in cells along each axis.
        stride: voxels per cell along each axis.
    """

    logits: Tensor
    edges: Tensor
    stride: tuple[int, ...]

    def boxes(self) -> Tensor:
        """(B, 2 n, *F) starts and stops in voxels of the image; voxel i spans [i, i + 1)."""
        n = len(self.stride)
        stride = self.edges.new_tensor(self.stride).view(1, n, *(1,) * n)
        centre = (middles(self.edges.shape[2:], self.edges.device)[None] + self.edges[:, :n]) * stride
        half = self.edges[:, n:].clamp(-_LOG_EDGE, _LOG_EDGE).exp() * stride / 2
        return torch.cat([centre - half, centre + half], dim=1)


def middles(shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """(n, *shape) middles of the cells, in cells: 0.5, 1.5, ..."""
    axes = [torch.arange(size, device=device) + 0.5 for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


class DenseHead(nn.Module):
    """Two branches of convolutions: scores, and boxes.

    Args:
        spatial_dims: 2 or 3.
        channels: of the pyramid.
        classes: number of classes K.
        depth: 3-wide convolutions in each branch.
    """

    def __init__(self, spatial_dims: int, channels: int, classes: int, depth: int) -> None:
        super().__init__()
        self.score_branch = _branch(spatial_dims, channels, depth)
        self.box_branch = _branch(spatial_dims, channels, depth)
        self.score, self.box = _outputs(spatial_dims, channels, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, *F) -> logits (B, K, *F) and edges (B, 2 n, *F)."""
        return _GAIN * self.score(self.score_branch(x)), self.box(self.box_branch(x))


class LinearHead(nn.Module):
    """Scores and boxes straight from a level of the encoder: what a linear probe is in detection.

    Args:
        spatial_dims: 2 or 3.
        channels: of the level.
        classes: number of classes K.
    """

    def __init__(self, spatial_dims: int, channels: int, classes: int) -> None:
        super().__init__()
        self.score, self.box = _outputs(spatial_dims, channels, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, *F) -> logits (B, K, *F) and edges (B, 2 n, *F)."""
        return _GAIN * self.score(x), self.box(x)


class DetectionNetwork(nn.Module):
    """Encoder, normalised levels, feature pyramid (Lin et al. 2017), dense heads on its finest levels.

    Norms are batch norm: most of what a level of a pre-trained encoder says is equal in all cells of an
    organ, and a small lesion is a small change on top. Only a norm over cells takes the constant part away;
    with one over the channels of a cell nothing but organs was learned in hundreds of steps. At inference no
    value depends on the tile.

    State: ``backbone.encoder.*`` and ``detection.*``.

    Args:
        encoder: gives the pyramid; its levels of stride 2 and more are used.
        classes: number of classes K.
        channels: of the feature pyramid and the head.
        depth: convolutions per branch of the head.
        levels: levels with a head, finest first.
        is_linear: no feature pyramid, one linear map per level instead (linear probe).
    """

    def __init__(
        self,
        encoder: AnyEncoder,
        classes: int,
        *,
        channels: int = 32,
        depth: int = 2,
        levels: int = 3,
        is_linear: bool = False,
    ) -> None:
        super().__init__()
        n = encoder.spatial_dims
        self.backbone = Backbone(encoder)
        # a level of full resolution costs eight times the next one and finds little more
        used = [level for level in encoder.levels if max(level.stride) > 1] or list(encoder.levels[-1:])
        self.first = len(encoder.levels) - len(used)
        self.strides = tuple(level.stride for level in used[:levels])
        widths = [level.channels for level in used]
        parts: dict[str, nn.Module] = {"norms": nn.ModuleList(Norm[Norm.BATCH, n](width) for width in widths)}
        if is_linear:
            parts["heads"] = nn.ModuleList(LinearHead(n, width, classes) for width in widths[:levels])
        else:
            parts["pyramid"] = FeaturePyramidNetwork(n, widths, channels)
            parts["heads"] = nn.ModuleList(DenseHead(n, channels, classes, depth) for _ in widths[:levels])
        self.detection = nn.ModuleDict(parts)
        self.is_linear = is_linear
        self.config: Mapping[str, Any] = {
            "classes": classes,
            "channels": channels,
            "depth": depth,
            "levels": levels,
            "is_linear": is_linear,
        }

    @property
    def encoder(self) -> AnyEncoder:
        """The bare encoder."""
        return cast("AnyEncoder", self.backbone.encoder)

    @property
    def multiple(self) -> tuple[int, ...]:
        """Voxels per axis come in multiples of this (the coarsest stride)."""
        return self.encoder.levels[-1].stride

    def find(self, pyramid: Sequence[Tensor]) -> list[DenseBoxes]:
        """Scores and boxes of the levels with a head, from the encoder's pyramid."""
        norms = cast("nn.ModuleList", self.detection["norms"])
        maps = [norm(level) for norm, level in zip(norms, pyramid[self.first :], strict=True)]
        if not self.is_linear:
            maps = list(self.detection["pyramid"]({str(i): level for i, level in enumerate(maps)}).values())
        heads = cast("nn.ModuleList", self.detection["heads"])
        found = [head(level) for head, level in zip(heads, maps, strict=False)]
        return [
            DenseBoxes(logits, edges, stride)
            for (logits, edges), stride in zip(found, self.strides, strict=True)
        ]

    def forward(self, x: Tensor) -> list[DenseBoxes]:
        """(B, C, *S) -> scores and boxes per level, S of any size: padded with zeros inside."""
        missing = [-size % step for size, step in zip(x.shape[2:], self.multiple, strict=True)]
        if any(missing):
            x = F.pad(x, [side for size in reversed(missing) for side in (0, size)])
        return self.find(self.backbone(x))


def _branch(spatial_dims: int, channels: int, depth: int) -> nn.Sequential:
    convolution = Conv[Conv.CONV, spatial_dims]
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [convolution(channels, channels, 3, padding=1, bias=False)]
        layers += [Norm[Norm.BATCH, spatial_dims](channels), nn.ReLU()]
    return nn.Sequential(*layers)


def _outputs(spatial_dims: int, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    convolution = Conv[Conv.CONV, spatial_dims]
    # default weights, not RetinaNet's of 0.01: with Adam the trunk would wander until these have grown
    score, box = convolution(channels, classes, 1), convolution(channels, 2 * spatial_dims, 1)
    with torch.no_grad():
        score.weight.div_(_GAIN)
    nn.init.constant_(score.bias, math.log(PRIOR / (1 - PRIOR)) / _GAIN)
    nn.init.zeros_(box.bias)
    nn.init.constant_(box.bias[spatial_dims:], _LOG_PRIOR)
    return score, box
