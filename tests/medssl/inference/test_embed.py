from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.inference import embed
from medssl.inference.embed import describe_steps, embed_steps, embed_volume
from medssl.inference.load import LoadedEncoder, load_encoder
from medssl.jobs.progress import drain
from medssl.volume import Geometry, Volume
from medssl.volume.normalize import Normalizer

SHAPES = {2: (75, 110), 3: (25, 37, 42)}
CT = np.int16(-1000), np.int16(1200)


def scan(spatial_dims: int, rng: np.random.Generator, spacing: float = 0.5) -> Volume:
    """Noise beside air, at the finest spacing of the range: its own grid is the working grid."""
    shape = SHAPES[spatial_dims]
    array = rng.integers(*CT, size=(1, *shape)).astype(np.int16)
    array[:, : shape[0] // 2] = -1000  # air: cells must not all look alike
    direction = [[0, 1], [1, 0]] if spatial_dims == 2 else [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    geometry = Geometry.from_arrays(shape, (spacing,) * spatial_dims, (5, -7, 11)[:spatial_dims], direction)
    return Volume(array, geometry, "CT", "scan")


def beyond(encoder: LoadedEncoder) -> str:
    """How a scan goes on up to a multiple of the coarsest stride."""
    return {"replicate": "replicate", "zeros": "constant"}[encoder.encoder.config["padding"]]


def one_pass(volume: Volume, encoder: LoadedEncoder) -> torch.Tensor:
    """The bare network over the whole padded volume, then the dense feature as training sees it."""
    x = torch.from_numpy(Normalizer.fit(volume.array, volume.modality)(volume.array))[None]
    pad = [n for size in reversed(volume.geometry.shape) for n in (0, -size % 16)]
    with torch.inference_mode():
        pyramid = encoder(F.pad(x, pad, mode=beyond(encoder)))
        return encoder.features(pyramid)[0]


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("tile_bytes", [100_000, 300_000, 2**30])
def test_tiles_equal_one_pass(
    spatial_dims: int,
    tile_bytes: int,
    tiny_weights: dict[int, Path],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(embed.TILE_BYTES, "cpu", tile_bytes)
    encoder = load_encoder(tiny_weights[spatial_dims])
    volume = scan(spatial_dims, rng)
    expected = one_pass(volume, encoder).numpy()
    found = embed_volume(volume, encoder).array
    crop = tuple(slice(0, n) for n in found.shape[1:])
    assert found.dtype == np.float16
    assert found.shape == (64, *(-(-n // 4) for n in volume.geometry.shape))
    np.testing.assert_allclose(found, expected[(slice(None), *crop)].astype(np.float16), atol=5e-4)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_levels_equal_one_pass_to_float32(
    spatial_dims: int,
    tiny_weights: dict[int, Path],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = load_encoder(tiny_weights[spatial_dims])
    volume = scan(spatial_dims, rng)
    found = {}
    for tile_bytes in (100_000, 2**30):
        monkeypatch.setitem(embed.TILE_BYTES, "cpu", tile_bytes)
        found[tile_bytes] = drain(embed._level_steps(embed.VolumeSource(volume, encoder), encoder))
    for tiled, whole in zip(found[100_000], found[2**30], strict=True):
        torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_prototypes_equal_one_pass(
    spatial_dims: int,
    tiny_weights: dict[int, Path],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(embed.TILE_BYTES, "cpu", 100_000)
    encoder = load_encoder(tiny_weights[spatial_dims])
    volume = scan(spatial_dims, rng)
    found = drain(describe_steps(volume, encoder)).prototypes
    assert found is not None
    assert encoder.head is not None
    assert encoder.prototypes is not None
    x = torch.from_numpy(Normalizer.fit(volume.array, "CT")(volume.array))[None]
    pad = [n for size in reversed(volume.geometry.shape) for n in (0, -size % 16)]
    with torch.inference_mode():
        cells = encoder.features.concatenated(encoder(F.pad(x, pad, mode=beyond(encoder))))
        expected = encoder.prototypes(encoder.head(cells))[0].argmax(0).numpy()
    expected = expected[tuple(slice(0, n) for n in found.geometry.shape)]
    assert (found.array[0] == expected).mean() > 0.999  # ties may fall either way
    assert len(np.unique(found.array)) > 1


@pytest.mark.parametrize("spacing", [0.3, 0.7, 2.6])
def test_map_lies_in_the_same_world(
    spacing: float, tiny_weights: dict[int, Path], rng: np.random.Generator
) -> None:
    """Changing a corner of the volume changes the features of that corner, found through the world."""
    encoder = load_encoder(tiny_weights[3])
    volume = scan(3, rng, spacing)
    position = tuple(n - 5 for n in volume.geometry.shape)
    changed = volume.array.copy()
    changed[(slice(None), *(slice(p - 2, p + 3) for p in position))] = 3000
    before, after = embed_volume(volume, encoder), embed_volume(volume.with_array(changed), encoder)
    difference = np.abs(after.array.astype(np.float32) - before.array).sum(0)
    strongest = np.unravel_index(difference.argmax(), difference.shape)
    distance = np.abs(after.geometry.to_world(strongest) - volume.geometry.to_world(position))
    assert distance.max() <= max(after.geometry.spacing) * 1.5
    low, high = before.geometry.to_world([0, 0, 0]), volume.geometry.to_world([-0.5, -0.5, -0.5])
    np.testing.assert_allclose(np.abs(low - high), np.asarray(before.geometry.spacing)[[1, 2, 0]] / 2)


def test_region_equals_the_whole_where_its_context_suffices(
    tiny_weights: dict[int, Path], rng: np.random.Generator
) -> None:
    encoder = load_encoder(tiny_weights[2])
    array = rng.integers(*CT, size=(1, 400, 400)).astype(np.int16)
    volume = Volume(array, Geometry.from_arrays((400, 400), has_spacing=False), "CT", "big")
    whole = embed_volume(volume, encoder)
    region = ((80, 400), (64, 384))
    patch = drain(describe_steps(volume, encoder, region=region)).features
    middle = patch.array[:, 36:44, 36:44]
    start = np.rint(whole.geometry.to_index(patch.geometry.to_world((36, 36)))).astype(int)
    assert tuple(start) == (20 + 36, 16 + 36)
    np.testing.assert_allclose(middle, whole.array[:, 56:64, 52:60], atol=2e-3)


def test_a_colour_image_is_averaged(tiny_weights: dict[int, Path], rng: np.random.Generator) -> None:
    encoder = load_encoder(tiny_weights[2])
    colours = rng.integers(0, 255, size=(3, 40, 52)).astype(np.uint8)
    geometry = Geometry.from_arrays((40, 52), has_spacing=False)
    found = embed_volume(Volume(colours, geometry), encoder)
    expected = embed_volume(Volume(colours.mean(0, keepdims=True), geometry), encoder)
    np.testing.assert_array_equal(found.array, expected.array)


def test_the_wrong_number_of_dimensions_is_refused(
    tiny_weights: dict[int, Path], rng: np.random.Generator
) -> None:
    with pytest.raises(InputError, match=r"has 2 dimensions and the encoder .* is for 3"):
        embed_volume(scan(2, rng), load_encoder(tiny_weights[3]))


def test_a_closed_generator_stops(
    tiny_weights: dict[int, Path], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(embed.TILE_BYTES, "cpu", 100_000)
    steps = embed_steps(scan(3, rng), load_encoder(tiny_weights[3]))
    progress = next(steps)
    assert progress.step == 1
    assert progress.total is not None
    assert progress.total > 3
    steps.close()
    assert not torch.is_inference_mode_enabled()
