"""Every architecture whose norms are fixed at inference gives the same cells in tiles and in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from medssl.errors import InputError
from medssl.inference import embed
from medssl.inference.load import LoadedEncoder
from medssl.jobs.progress import drain
from medssl.nets.backbone import Backbone
from medssl.nets.dense import DenseFeatures
from medssl.nets.encoders import restore_encoder
from medssl.volume import Geometry, Volume

NETWORKS = [
    {"architecture": "genesis", "spatial_dims": 2, "width": 2},
    {"architecture": "genesis", "spatial_dims": 3, "width": 1},
    {"architecture": "resnet", "spatial_dims": 2, "blocks": (1, 2, 1, 1), "width": 2},
    {"architecture": "resnet", "spatial_dims": 2, "blocks": (1, 1, 1), "width": 2, "mean": (0.4,) * 3,
     "std": (0.2,) * 3},
    {"architecture": "resnet", "spatial_dims": 3, "blocks": (1, 1, 1), "width": 1},
    {"architecture": "resenc", "spatial_dims": 2, "channels": (2, 3, 4, 4), "blocks": (1, 1, 2, 1)},
]  # fmt: skip
BUDGETS = [150_000, 600_000, 20_000, 20_000, 20_000, 20_000]
"""Bytes of a tile that hold about half of the volume."""


def loaded(config: dict[str, Any], **options: Any) -> LoadedEncoder:
    torch.manual_seed(0)
    encoder = restore_encoder(config)
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape) + 0.5)
    return LoadedEncoder(
        Backbone(encoder),
        DenseFeatures(encoder.levels),
        head=None,
        prototypes=None,
        metadata={"preprocessing": {}},
        signature="",
        name="test",
        **options,
    )


def noise(spatial_dims: int, shape: tuple[int, ...] = ()) -> Volume:
    shape = shape or {2: (150, 110), 3: (40, 60, 50)}[spatial_dims]
    array = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1)).numpy()
    return Volume(array, Geometry.from_arrays(shape, (0.5,) * spatial_dims), "MR", "noise")


@pytest.mark.parametrize(
    ("config", "budget"), list(zip(NETWORKS, BUDGETS, strict=True)), ids=[n["architecture"] for n in NETWORKS]
)
def test_tiles_equal_one_pass(config: dict[str, Any], budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = loaded(config)
    source = embed.VolumeSource(noise(encoder.spatial_dims), encoder)
    with torch.no_grad():
        whole = encoder(source(tuple((0, n) for n in source.shape)))
    monkeypatch.setitem(embed.TILE_BYTES, "cpu", budget)
    steps = embed._level_steps(source, encoder)
    tiles = 0
    while True:
        try:
            tiles = max(tiles, next(steps).total or 0)
        except StopIteration as stop:
            levels = stop.value
            break
    # Instance norm measures a tile by itself, so its tiles are as large as memory allows.
    assert (tiles > 1) == (config["architecture"] != "resenc")
    for index, level in zip(encoder.features.used, levels, strict=True):
        expected = torch.nn.functional.normalize(whole[index], dim=1)
        torch.testing.assert_close(level, expected, atol=1e-4, rtol=0)


def test_an_image_of_one_coarse_cell_can_be_measured_by_instance_norm() -> None:
    features = embed.embed_volume(noise(2, (7, 6)), loaded(NETWORKS[-1])).array
    assert features.shape[1:] == (2, 2)
    assert np.isfinite(features).all()


def test_without_a_projection_there_are_no_features() -> None:
    encoder = loaded(NETWORKS[0], has_projection=False)
    with pytest.raises(InputError, match="test: no projection of its 48 channels"):
        drain(embed.embed_steps(noise(2), encoder))
