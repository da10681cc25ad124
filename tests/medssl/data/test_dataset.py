from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from medssl.data.dataset import CropDataset, Loader
from medssl.data.sampler import Draw, FamilySampler
from medssl.errors import InputError


def coordinates(shape: tuple[int, int, int]) -> np.ndarray:
    """Values that tell where a voxel came from, all above the foreground threshold."""
    z, y, x = np.indices(shape)
    return 0.2 + 0.8 * (z * 40 * 40 + y * 40 + x) / 40**3


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_crop_is_a_piece_of_the_volume(make_cache, spatial_dims: int) -> None:
    array = coordinates((20, 25, 30)).astype(np.float32)
    dataset = CropDataset(make_cache([(array, {})], "int16"), spatial_dims, (9, 8, 7)[:spatial_dims])
    seen = set()
    for seed in range(20):
        values, spacing = dataset.sample(0, seed)
        assert values.shape == (9, 8, 7)[:spatial_dims]
        assert spacing == (1.0,) * spatial_dims
        first = np.abs(array - values.flat[0]).argmin()
        z, y, x = np.unravel_index(first, array.shape)
        expected = (
            array[z : z + 9, y : y + 8, x : x + 7] if spatial_dims == 3 else array[z, y : y + 9, x : x + 8]
        )
        np.testing.assert_allclose(values, expected, atol=1e-4)
        seen.add((z, y, x))
    assert len(seen) > 15


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("padding", ["zero", "edge", "reflect"])
def test_a_small_volume_is_padded(make_cache, spatial_dims: int, padding: str) -> None:
    array = np.full((5, 6, 7), 0.5, np.float32)
    cache = make_cache([(array, {})])
    dataset = CropDataset(cache, spatial_dims, (12,) * spatial_dims, padding=padding)
    values, _ = dataset.sample(0, 1)
    assert values.shape == (12,) * spatial_dims
    inside = int(np.prod((5, 6, 7)[3 - spatial_dims :]))
    assert (values == 0.5).sum() == (inside if padding == "zero" else values.size)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_zoom_changes_spacing_and_keeps_the_world(make_cache, spatial_dims: int) -> None:
    ramp = np.broadcast_to(0.2 + np.arange(40, dtype=np.float32) / 80, (40, 40, 40))
    cache = make_cache([(ramp, {"spacing": [3.0, 2.0, 2.0]})], "int16")
    dataset = CropDataset(cache, spatial_dims, (16,) * spatial_dims, zoom=(2.0, 2.0))
    values, spacing = dataset.sample(0, 0)
    assert values.shape == (16,) * spatial_dims
    assert spacing == (6.0, 4.0, 4.0)[3 - spatial_dims :]
    # one voxel of 4 mm climbs as much as two of 2 mm
    np.testing.assert_allclose(np.diff(values, axis=-1)[..., 1:-1], 2 / 80, atol=1e-3)


def test_foreground_is_preferred(make_cache) -> None:
    array = np.zeros((40, 40, 40), np.float32)
    array[:, :, 20:] = 1
    plain = CropDataset(make_cache([(array, {})]), 3, (8, 8, 8), foreground=0)
    keen = CropDataset(plain.cache, 3, (8, 8, 8), foreground=0.3)
    empty = [np.mean([data.sample(0, seed)[0].max() == 0 for seed in range(60)]) for data in (plain, keen)]
    assert empty[0] > 0.25
    assert empty[1] < 0.05


def test_splits_and_dimensions_select_volumes(make_cache) -> None:
    image = (np.ones((1, 9, 9)), {"ndim": 2, "split": "train"})
    held_out = (np.ones((9, 9, 9)), {"split": "val"})
    unlabelled = (np.ones((9, 9, 9)), {"split": "unlabelled"})
    cache = make_cache([image, held_out, unlabelled])
    assert CropDataset(cache, 3, (4, 4, 4)).rows.tolist() == [2]
    assert CropDataset(cache, 2, (4, 4)).rows.tolist() == [0, 2]
    with pytest.raises(InputError, match="no 3D image of split test"):
        CropDataset(cache, 3, (4, 4, 4), splits=("test",))


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_that_starts_late_gives_the_same_batches(
    make_cache, spatial_dims: int, workers: int
) -> None:
    volumes = [
        (
            np.random.default_rng(n).random((14, 15, 16)),
            {"group": f"g{n % 2}", "modality": ("CT", "MR")[n % 2]},
        )
        for n in range(5)
    ]
    dataset = CropDataset(make_cache(volumes), spatial_dims, (8,) * spatial_dims, zoom=(0.7, 1.4))
    sampler = FamilySampler(dataset.families(), 4, seed=5)
    from_zero = list(islice(Loader(dataset, sampler, workers=workers).batches(), 6))
    late = list(islice(Loader(dataset, sampler, workers=0).batches(3), 3))
    for expected, batch in zip(from_zero[3:], late, strict=True):
        assert torch.equal(expected.image, batch.image)
        assert torch.equal(expected.index, batch.index)
    batch = from_zero[0]
    assert batch.image.shape == (4, 1, *(8,) * spatial_dims)
    assert batch.image.dtype == torch.float32
    assert batch.spacing.shape == (4, spatial_dims)
    assert [dataset.modalities[m] for m in batch.modality] == [("CT", "MR")[i % 2] for i in batch.index]
    assert batch.targets is not None
    assert torch.equal(batch.targets["group"], batch.index % 2)


def test_a_reading_error_reaches_the_training_thread(make_cache) -> None:
    dataset = CropDataset(make_cache([(np.ones((9, 9, 9)), {})]), 3, (4, 4, 4))
    (dataset.cache.folder / "shard-00000.bin").unlink()
    loader = Loader(dataset, FamilySampler(dataset.families(), 2), workers=1)
    with pytest.raises(InputError, match="damaged"):
        next(loader.batches())


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("zoom", [1.0, 1.7])
def test_masks_follow_their_crop(make_cache, spatial_dims: int, zoom: float) -> None:
    """A mask that is a threshold of its image must stay one in every crop, padded or zoomed."""
    image = np.zeros((12, 30, 30), np.float32)
    image[:, 8:22, 5:25] = 0.8
    mask = np.where(image > 0.4, 7, 2).astype(np.uint8)
    cache = make_cache([(image, {"class": "x"}, mask), (image, {})])
    size = (24,) * spatial_dims
    dataset = CropDataset(cache, spatial_dims, size, zoom=(zoom, zoom), labels=True)
    plain = CropDataset(cache, spatial_dims, size, zoom=(zoom, zoom))
    batch = dataset.batch(Draw(np.array([0, 1, 0]), np.array([3, 4, 5], np.uint64)))
    assert torch.equal(
        batch.image, plain.batch(Draw(batch.index.numpy(), np.array([3, 4, 5], np.uint64))).image
    )
    assert batch.label.shape == batch.image.shape
    assert batch.label.dtype == torch.int64
    assert (batch.label[1] == -1).all()
    assert batch.targets["class"].tolist() == [[1], [-1], [1]]
    for row in (0, 2):
        known = batch.label[row] >= 0  # outside the volume nothing is known
        right = (batch.label[row] == 1) == (batch.image[row] > 0.4)
        assert 0.1 < known.float().mean() <= 1
        assert right[known].float().mean() > (0.999 if zoom == 1 else 0.93)
        assert set(batch.label[row].unique().tolist()) <= {-1, 0, 1}


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_crop_of_padding_alone_is_refused(make_cache, spatial_dims: int) -> None:
    cache = make_cache([(np.full((5, 6, 7), 0.5), {}), (np.full((5, 8, 6), 0.5), {})])
    CropDataset(cache, spatial_dims, (56,) * spatial_dims)
    shown = " x ".join(("5", "8", "7")[3 - spatial_dims :])
    with pytest.raises(InputError, match=f"a crop of 65 voxels .* {shown}; choose a smaller"):
        CropDataset(cache, spatial_dims, (65,) * spatial_dims)
