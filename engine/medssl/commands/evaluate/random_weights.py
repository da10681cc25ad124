"""The same encoder with random weights: what pre-training has to beat."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssl.errors import InputError
from medssl.inference.embed import VolumeSource
from medssl.inference.load import LoadedEncoder
from medssl.nets.backbone import Backbone
from medssl.nets.dense import DENSE_CHANNELS, DenseFeatures
from medssl.nets.encoders import ENCODERS, AnyEncoder, build_encoder, restore_encoder
from medssl.volume import Volume
from medssl.volume.working_grid import SPACING_RANGE

RANDOM_PREFIX = "random:"
"""Names an architecture without weights: "random:small"."""

_SIDE = {2: 512, 3: 96}  # of the box that is looked at in each volume, voxels
PROJECTION = "principal components"
"""How the projection of a twin is fitted; cells of the evaluation depend on it."""

_VOLUMES = 10  # to calibrate on, evenly picked
_CELLS = 2_000  # per volume for the projection


def random_encoder(size: str, spatial_dims: int) -> LoadedEncoder:
    """An encoder of the family without weights, to be calibrated by `random_twin`.

    Args:
        size: "tiny", "small" or "base".
        spatial_dims: 2 or 3.

    Raises:
        InputError: there is no such size.
    """
    if size not in ENCODERS:
        raise InputError(f"--encoder {RANDOM_PREFIX}{size}: no such size; choose from {', '.join(ENCODERS)}")
    return _untrained(build_encoder(size, spatial_dims), f"{RANDOM_PREFIX}{size}")


def random_like(encoder: LoadedEncoder) -> LoadedEncoder:
    """The architecture of ``encoder`` without its weights and without the spacing they are made for."""
    bare = restore_encoder(encoder.encoder.config)
    name = f"{RANDOM_PREFIX}{encoder.name}"
    return _untrained(bare, name, encoder.features.out_channels).to(encoder.device)


def _untrained(encoder: AnyEncoder, name: str, channels: int = DENSE_CHANNELS) -> LoadedEncoder:
    return LoadedEncoder(
        Backbone(encoder),
        DenseFeatures(encoder.levels, channels),
        head=None,
        prototypes=None,
        metadata={"method": "random", "preprocessing": {"spacing_range": list(SPACING_RANGE)}},
        signature=name,
        name=name,
    )


@torch.no_grad()
def random_twin(encoder: LoadedEncoder, volumes: Sequence[Volume], seed: int) -> LoadedEncoder:
    """The architecture of ``encoder`` with weights drawn anew, made as good as random weights can be.

    Running statistics and the projection are fitted on the volumes themselves, without labels; a random
    network with the initial statistics would be a straw man. The projection keeps principal components:
    the invariant directions that trained weights keep cost random ones up to 13 Dice and 37 points of
    precision on hippocampi.

    Args:
        encoder: gives architecture, working spacing and device.
        volumes: scans to calibrate on.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = restore_encoder(encoder.encoder.config)
    twin.to(encoder.device).train()
    norms = [m for m in twin.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain mean over the volumes
    boxes = [_central_box(volume, encoder) for volume in volumes[:: -(-len(volumes) // _VOLUMES)]]
    for box in boxes:
        twin(torch.cat([box, box.flip(-1)]))  # with its mirror image: a level may have one cell only
    twin.eval()
    dense = DenseFeatures(twin.levels, encoder.features.out_channels).to(encoder.device)
    _fit_principal_axes(dense, twin, boxes, seed)
    digest = hashlib.sha256(repr((seed, sorted(encoder.encoder.config.items()))).encode())
    for tensor in (*twin.state_dict().values(), dense.weight, dense.mean):
        digest.update(tensor.cpu().numpy().tobytes())
    return LoadedEncoder(
        Backbone(twin),
        dense,
        head=None,
        prototypes=None,
        metadata={**encoder.metadata, "method": "random"},
        signature=digest.hexdigest(),
        name=f"random-{seed}",
    )


def _central_box(volume: Volume, encoder: LoadedEncoder) -> Tensor:
    source = VolumeSource(volume, encoder)
    side = _SIDE[volume.spatial_dims]
    box = []
    for size, stride in zip(source.shape, encoder.levels[-1].stride, strict=True):
        start = max(0, size - side) // 2 // stride * stride
        box.append((start, min(size, start + side)))
    return source(tuple(box))


def _fit_principal_axes(
    dense: DenseFeatures, encoder: AnyEncoder, boxes: Sequence[Tensor], seed: int
) -> None:
    """Principal components of the concatenated feature as projection, in place."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for box in boxes:
        cells = dense.concatenated(encoder(box))[0].flatten(1).T.double().cpu()
        samples.append(cells[torch.randperm(len(cells), generator=generator)[:_CELLS]])
    x = torch.cat(samples)
    mean = x.mean(0)
    _, sigma, axes = torch.linalg.svd(x - mean, full_matrices=False)
    weight = axes[: dense.out_channels] / sigma[: dense.out_channels].square().mean().sqrt()
    dense.weight[: len(weight)].copy_(weight)
    dense.mean.copy_(mean)
