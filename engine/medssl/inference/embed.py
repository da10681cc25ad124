"""Volume -> 64-channel feature map on its own geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.instancenorm import _InstanceNorm

from medssl.errors import InputError
from medssl.inference.load import LoadedEncoder
from medssl.inference.prototypes import assign_steps
from medssl.inference.tiling import Box, Source, Stage, fill, part
from medssl.jobs.progress import Progress, Steps, drain
from medssl.nets.dense import resize
from medssl.protocols import FeatureLevel
from medssl.store.weights import BUNDLED
from medssl.volume import Volume
from medssl.volume.normalize import Normalizer
from medssl.volume.resample import interpolate, interpolation_matrices
from medssl.volume.working_grid import working_geometry

TILE_BYTES = {"cpu": 96 * 2**20, "cuda": 2**30}
"""Largest activation of one tile; about five live at once."""

INSTANCE_NORM_BYTES = 2**29
"""The same for encoders with instance norm, which measures a tile by itself: 160^3 voxels of 32 channels, the
patch that the public ones were trained with."""

_CHANNELS_AT_ONCE = 16  # of the result, so that full-size float32 maps stay small


@dataclass(frozen=True, eq=False)
class Embedding:
    """What one pass over a volume gives.

    Args:
        features: (64, *S') float16 on the grid of cells.
        prototypes: (1, *S') uint16, the learned prototype that fits each cell best; None where it was
            not asked for or the weights have none.
    """

    features: Volume
    prototypes: Volume | None = None


class VolumeSource:
    """Normalised voxels on the encoder's working grid, any box of them at a time.

    Nothing is copied whole: resampling and normalisation see one box. Beyond the grid, up to a multiple of
    the coarsest stride, there is what the encoder's convolutions see beyond a border.

    Args:
        volume: the scan; several channels are averaged for an encoder of one.
        encoder: gives working spacing, channels and strides.
        region: box in working-grid voxels to which the source is confined, aligned to the coarsest
            stride; None for all.

    Raises:
        InputError: the volume does not fit the encoder.
    """

    def __init__(self, volume: Volume, encoder: LoadedEncoder, region: Box | None = None) -> None:
        if volume.spatial_dims != encoder.spatial_dims:
            raise InputError(
                f"{volume.id or 'the image'} has {volume.spatial_dims} dimensions and the encoder "
                f"{encoder.name!r} is for {encoder.spatial_dims}; choose another, "
                f"for example {BUNDLED[volume.spatial_dims]}"
            )
        channels = len(volume.array)
        if encoder.in_channels not in (1, channels):
            raise InputError(
                f"{volume.id or 'the image'} has {channels} channels and the encoder {encoder.name!r} "
                f"takes {encoder.in_channels}; choose another encoder"
            )
        self._array = volume.array
        self._is_averaged = encoder.in_channels == 1 and channels > 1
        whole = volume.array.mean(axis=0, keepdims=True) if self._is_averaged else volume.array
        self._normalizer = Normalizer.fit(whole, volume.modality)
        self.grid = working_geometry(volume.geometry, encoder.spacing_range)
        self._matrices = (
            None if self.grid is volume.geometry else interpolation_matrices(volume.geometry, self.grid)
        )
        self._device = encoder.device
        self._padding = "replicate" if encoder.encoder.config.get("padding") == "replicate" else "constant"
        stride = encoder.levels[-1].stride
        box = region or tuple((0, n) for n in self.grid.shape)
        self._start = tuple(low for low, _ in box)
        self.valid = tuple(min(high, n) - low for (low, high), n in zip(box, self.grid.shape, strict=True))
        shape = tuple(-(-n // s) * s for n, s in zip(self.valid, stride, strict=True))
        if shape == stride and has_instance_norm(encoder):  # it needs two cells to measure anything
            shape = (2 * shape[0], *shape[1:])
        self.shape = shape

    def __call__(self, box: Box) -> Tensor:
        """(1, C, *box) float32 on the encoder's device; ``box`` relative to the region."""
        inside = [
            slice(min(low, n - 1) + start, min(high, n) + start)
            for (low, high), start, n in zip(box, self._start, self.valid, strict=True)
        ]
        beyond = any(low >= n for (low, _), n in zip(box, self.valid, strict=True))
        if beyond and self._padding == "constant":
            sizes = [high - low for low, high in box]
            channels = 1 if self._is_averaged else len(self._array)
            return torch.zeros((1, channels, *sizes), device=self._device)
        if self._matrices is None:
            values = self._array[(slice(None), *inside)]
        else:
            rows = tuple(matrix[s] for matrix, s in zip(self._matrices, inside, strict=True))
            values = interpolate(self._array, rows)
        if self._is_averaged:
            values = values.mean(axis=0, keepdims=True)
        x = torch.from_numpy(np.ascontiguousarray(self._normalizer(values)))[None].to(self._device)
        missing = [high - low - (s.stop - s.start) for (low, high), s in zip(box, inside, strict=True)]
        if not any(missing):
            return x
        return torch.nn.functional.pad(x, [n for m in reversed(missing) for n in (0, m)], mode=self._padding)


def embed_volume(volume: Volume, encoder: LoadedEncoder) -> Volume:
    """Embed a whole volume, here and now.

    Args:
        volume: (C, *S) scan.
        encoder: from `load_encoder`; its device does the work.

    Returns:
        (64, *S') float16 features on the stride-4 grid of the encoder's working spacing, in the same
        world as the volume.
    """
    return drain(embed_steps(volume, encoder))


def embed_steps(
    volume: Volume, encoder: LoadedEncoder, device: str | torch.device | None = None
) -> Steps[Volume]:
    """`embed_volume` as a generator: one `Progress` per tile, may be closed at any of them."""
    return (yield from describe_steps(volume, encoder, device, with_prototypes=False)).features


def describe_steps(
    volume: Volume,
    encoder: LoadedEncoder,
    device: str | torch.device | None = None,
    *,
    region: Box | None = None,
    with_prototypes: bool = True,
) -> Steps[Embedding]:
    """Features and, where the weights have them, learned prototypes of every cell in one pass.

    Native grid -> working grid -> [0, 1] -> stages up to stride 4 in tiles -> each coarser stage on the
    map before it -> per level: unit length, projection, to the fine grid, sum. Equal to one pass over
    the whole volume whatever the tiles (see `medssl.inference.tiling`).

    Args:
        volume: (C, *S) scan.
        encoder: from `load_encoder`.
        device: moves the encoder there first; None leaves it.
        region: box of working-grid voxels, aligned to the coarsest stride, to embed instead of all.
        with_prototypes: also assign prototypes.

    Raises:
        InputError: the weights have no projection, or the volume does not fit the encoder.
    """
    if not encoder.has_projection:
        raise InputError(
            f"{encoder.name}: no projection of its {encoder.features.in_channels} channels to the dense "
            "feature was fitted; import it again with --data SCANS, or fine-tune from it"
        )
    if device is not None:
        encoder.to(device)
    source = VolumeSource(volume, encoder, region)
    levels = yield from _level_steps(source, encoder)
    stride = encoder.features.levels[0].stride
    shape = tuple(-(-n // s) for n, s in zip(source.valid, stride, strict=True))
    grid = source.grid.cells(stride)
    if region is not None:
        start = tuple(low // s for (low, _), s in zip(region, stride, strict=True))
        grid = grid.cropped(start, shape)
    features = Volume(_project(levels, encoder, shape), grid, volume.modality, volume.id)
    prototypes = None
    if with_prototypes and encoder.prototypes is not None:
        assigned = yield from assign_steps(levels, encoder, shape, volume.modality)
        prototypes = features.with_array(assigned)
    return Embedding(features, prototypes)


def _level_steps(source: VolumeSource, encoder: LoadedEncoder) -> Steps[list[Tensor]]:
    """The used levels over the whole source, each cell of unit length."""
    stages, levels = _stages(encoder), encoder.levels
    used = encoder.features.used
    budget = TILE_BYTES["cuda" if encoder.device.type == "cuda" else "cpu"]
    if has_instance_norm(encoder):
        budget = max(budget, INSTANCE_NORM_BYTES)
    maps: dict[int, Tensor] = {}
    read: Source = source
    begin, shape = 0, source.shape
    for index in range(used[0], used[-1] + 1):
        group = stages[begin : index + 1]
        limit = budget // (4 * _floats_per_cell(levels, begin, index))
        steps = fill(group, read, shape, limit)
        while True:
            try:
                with torch.inference_mode():
                    done, total = next(steps)
            except StopIteration as stop:
                maps[index] = stop.value
                break
            yield Progress(done, total, f"embedding, stride {levels[index].stride[0]}")
        begin, shape = index + 1, tuple(maps[index].shape[2:])
        read = _reader(maps[index])
    with torch.inference_mode():
        for index in used:
            maps[index].div_(torch.linalg.vector_norm(maps[index], dim=1, keepdim=True).clamp_min_(1e-12))
    return [maps[index] for index in used]


def has_instance_norm(encoder: LoadedEncoder) -> bool:
    """Whether values depend on what is seen at once."""
    return any(isinstance(module, _InstanceNorm) for module in encoder.encoder.modules())


def _stages(encoder: LoadedEncoder) -> list[Stage]:
    strides = [(1,) * encoder.spatial_dims, *(level.stride for level in encoder.levels)]
    return [
        Stage(module, tuple(b // a for a, b in zip(before, after, strict=True)), tuple(halo))
        for module, before, after, halo in zip(
            encoder.fused_stages(), strides, strides[1:], encoder.encoder.halos, strict=False
        )
    ]


def _floats_per_cell(levels: Sequence[FeatureLevel], begin: int, end: int) -> int:
    """Numbers in the largest activation of stages ``begin..end`` per cell of level ``end``."""
    cell = np.prod(levels[end].stride)
    return max(int(level.channels * cell // np.prod(level.stride)) for level in levels[begin : end + 1])


def _reader(level: Tensor) -> Source:
    return lambda box: level[part(box)]


def _project(levels: Sequence[Tensor], encoder: LoadedEncoder, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Projection of every level, brought to the fine grid and summed: (64, *shape) float16.

    Some channels at a time: projection and interpolation are linear, so they commute, and the coarse
    levels are interpolated after the projection.
    """
    dense = encoder.features
    fine = levels[0].shape[2:]
    crop = (slice(None), *(slice(0, n) for n in shape))
    result = np.empty((dense.out_channels, *shape), np.float16)
    with torch.inference_mode():
        for low in range(0, dense.out_channels, _CHANNELS_AT_ONCE):
            rows = slice(low, low + _CHANNELS_AT_ONCE)
            total = -dense.offset()[rows].view(-1, *(1,) * len(shape))
            for level, weight in zip(levels, dense.weights(), strict=True):
                projected = (weight[rows] @ level[0].flatten(1)).view(-1, *level.shape[2:])
                total = total + (projected if level.shape[2:] == fine else resize(projected[None], fine)[0])
            result[rows] = total[crop].half().cpu().numpy()
    return result
