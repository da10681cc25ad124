from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medssl.data.held_out import hold_out_voxels, nested_fraction, split_rows
from medssl.data.labelled import (
    LabelledVolume,
    class_values,
    known_values,
    read_labelled,
    to_indices,
    to_working_grid,
    whole_numbers,
)
from medssl.data.patches import PatchLoader
from medssl.data.table import Row
from medssl.errors import InputError
from medssl.io import write_volume
from medssl.volume import Geometry, Volume

ANGLE = np.deg2rad(20)
OBLIQUE = ((1.0, 0.0, 0.0), (0.0, np.cos(ANGLE), -np.sin(ANGLE)), (0.0, np.sin(ANGLE), np.cos(ANGLE)))


def geometry(shape=(6, 10, 12), spacing=(3.0, 0.8, 0.4), origin=(5.0, -3.0, 7.0)) -> Geometry:
    return Geometry.from_arrays(shape, spacing, origin, OBLIQUE)


def on_disk(folder: Path, label_geometry: Geometry, mask: np.ndarray) -> Row:
    rng = np.random.default_rng(0)
    image = Volume(rng.normal(0, 1, (1, *geometry().shape)).astype(np.float32), geometry(), "MR", "scan")
    write_volume(image, folder / "scan.nii.gz")
    write_volume(Volume(mask[None], label_geometry, "", "label"), folder / "scan_label.nii.gz")
    return Row(folder / "scan.nii.gz", folder / "scan_label.nii.gz", modality="MR", origin="table.csv:2")


def test_reads_a_label_on_the_grid_of_its_image(tmp_path):
    mask = np.random.default_rng(0).integers(0, 4, geometry().shape).astype(np.uint8)
    volume, values = read_labelled(on_disk(tmp_path, geometry(), mask))
    np.testing.assert_array_equal(values, mask)
    assert volume.geometry.matches(geometry())


@pytest.mark.parametrize(
    "other",
    [
        geometry(shape=(6, 10, 11)),
        geometry(spacing=(3.0, 0.8, 0.5)),
        geometry(origin=(500.0, -3.0, 7.0)),
    ],
    ids=["shape", "spacing", "outside the image"],
)
def test_a_label_on_another_grid_is_refused(tmp_path, other):
    row = on_disk(tmp_path, other, np.zeros(other.shape, np.uint8))
    with pytest.raises(InputError, match=r"table\.csv:2: label scan_label\.nii\.gz lies on another grid"):
        read_labelled(row)


def test_masks_hold_whole_numbers():
    np.testing.assert_array_equal(whole_numbers(np.array([[0.0, 2.0]]), "m"), [0, 2])
    with pytest.raises(InputError, match="fractions"):
        whole_numbers(np.array([[0.5, 2.0]]), "m")
    with pytest.raises(InputError, match="numbered 0 to 255"):
        whole_numbers(np.array([[-1, 2]]), "m")
    with pytest.raises(InputError, match="2 channels"):
        whole_numbers(np.zeros((2, 4)), "m")
    with pytest.raises(InputError, match="no label"):
        read_labelled(Row(Path("scan.nii.gz"), origin="t:3"))


def test_classes_of_dense_masks_and_of_scribbles():
    masks = [np.array([0, 2, 2], np.uint8), np.array([0, 7], np.uint8)]
    assert class_values(known_values(mask, "dense") for mask in masks) == (0, 2, 7)
    assert class_values(known_values(mask, "scribbles") for mask in masks) == (2, 7)
    np.testing.assert_array_equal(to_indices(np.array([0, 7, 2, 300, -1]), (2, 7)), [-1, 1, 0, -1, -1])
    np.testing.assert_array_equal(to_indices(masks[0], (0, 2, 7)), [0, 1, 1])


def test_no_painted_voxel_is_lost_on_a_coarser_grid(rng, tmp_path):
    indices = np.full((8, 30, 40), -1, np.int16)
    places = np.stack([rng.integers(0, n, 12) for n in indices.shape])
    indices[tuple(places)] = rng.integers(0, 3, 12)
    volume = Volume(
        rng.normal(0, 1, (1, *indices.shape)), Geometry.from_arrays(indices.shape, (2.0, 0.2, 0.2))
    )
    for scratch in (None, tmp_path):
        found = to_working_grid(Row(Path("x")), volume, indices, (0.5, 1.25), scratch)
        assert found.image.shape == (1, *found.label.shape) == (1, *found.grid.shape)
        assert found.grid.shape == (32, 12, 16)
        assert set(np.unique(found.label)) == set(np.unique(indices))
        cell = ((places.T + 0.5) * np.array(found.grid.shape) / np.array(indices.shape)).astype(int)
        assert (found.label[tuple(cell.T)] >= 0).all()


def test_dense_labels_follow_the_image_to_the_working_grid():
    shape = (6, 20, 20)
    label = np.zeros(shape, np.int16)
    label[2:4, 5:12, 8:16] = 1
    volume = Volume(label[None].astype(np.float32), Geometry.from_arrays(shape, (3.0, 1.0, 0.3)), "MR")
    found = to_working_grid(Row(Path("x")), volume, label, (0.5, 1.25))
    agree = ((found.image[0] > 0.5) == (found.label == 1)).mean()
    assert agree > 0.95
    assert (found.label >= 0).all()


def labelled(shape: tuple[int, ...], label: np.ndarray) -> LabelledVolume:
    image = np.arange(np.prod(shape)).reshape(1, *shape).astype(np.float16)
    return LabelledVolume(Row(Path("x"), Path("y"), origin="t:2"), Geometry.from_arrays(shape), image, label)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_patches_are_a_function_of_seed_and_step(spatial_dims, rng):
    shape = (17, 20, 9)[:spatial_dims]
    volume = labelled(shape, rng.integers(-1, 3, shape).astype(np.int16))
    loader = PatchLoader([volume], (0, 1, 2), (8,) * spatial_dims, 3, seed=5)
    stream = loader.batches(2)
    for step in (2, 3):
        batch = next(stream)
        again = PatchLoader([volume], (0, 1, 2), (8,) * spatial_dims, 3, seed=5).batch(step)
        np.testing.assert_array_equal(batch.image, again.image)
        np.testing.assert_array_equal(batch.label, again.label)
    assert not np.array_equal(loader.batch(0).image, loader.batch(1).image)
    assert batch.image.shape == (3, 1, *(8,) * spatial_dims)


def test_patches_are_cut_where_they_say(rng):
    shape = (17, 20)
    volume = labelled(shape, rng.integers(0, 3, shape).astype(np.int16))
    batch = PatchLoader([volume], (0, 1, 2), (8, 24), 4).batch(0)
    for image, label in zip(batch.image[:, 0].numpy(), batch.label[:, 0].numpy(), strict=True):
        known = label >= 0
        assert known.sum() == 8 * 20, "the volume is narrower than the patch"
        assert (image[~known] == 0).all()
        values = image[known].astype(int)
        np.testing.assert_array_equal(label[known], volume.label.reshape(-1)[values])


def test_rare_classes_are_seen_as_often_as_common_ones():
    label = np.zeros((40, 40), np.int16)
    label[20, 20], label[5, 5] = 1, 2
    loader = PatchLoader([labelled((40, 40), label)], (0, 1, 2), (9, 9), 1, foreground=1.0)
    seen = [np.unique(loader.batch(step).label) for step in range(300)]
    for index in (1, 2):
        assert 0.25 < np.mean([index in classes for classes in seen]) < 0.45


def test_a_volume_without_labels_is_refused():
    with pytest.raises(InputError, match="no labelled voxel"):
        PatchLoader([labelled((4, 4), np.full((4, 4), -1, np.int16))], (0, 1), (4, 4), 1)
    with pytest.raises(InputError, match="no labelled volume"):
        PatchLoader([], (0, 1), (4, 4), 1)


def rows(count: int, split: str = "train") -> list[Row]:
    return [
        Row(Path(f"{n}"), subject=f"s{n // 2}", split=split, origin=f"t.csv:{n + 2}") for n in range(count)
    ]


def test_fractions_are_nested_and_keep_subjects_whole():
    before: set[Path] = set()
    for fraction in (0.05, 0.1, 0.25, 0.5, 1.0):
        kept = nested_fraction(rows(40), fraction, seed=3)
        assert before <= {row.image for row in kept}
        before = {row.image for row in kept}
        assert len({row.subject for row in kept}) == max(1, round(fraction * 20))
        assert len(kept) == 2 * len({row.subject for row in kept})
    assert len(before) == 40
    assert nested_fraction(rows(40), 0.5, seed=3) != nested_fraction(rows(40), 0.5, seed=4)


def test_split_takes_val_then_subjects_then_nobody():
    train, held, words = split_rows(rows(4) + rows(3, "val"), 0)
    assert (len(train), len(held)) == (4, 3)
    assert "split val" in words
    train, held, words = split_rows(rows(20), 0)
    assert {r.subject for r in train}.isdisjoint({r.subject for r in held})
    assert (len(train), len(held)) == (16, 4)
    train, held, words = split_rows(rows(4), 0)
    assert (len(train), held) == (4, [])
    assert "blocks" in words
    with pytest.raises(InputError, match="no row has split train"):
        split_rows(rows(3, "val"), 0)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_held_out_voxels_are_whole_blocks_and_every_class_stays_in_training(spatial_dims, rng):
    shape = (40, 48, 24)[:spatial_dims]
    label = np.full(shape, -1, np.int16)
    scribble = rng.random(shape) < 0.1
    label[scribble] = rng.integers(0, 2, scribble.sum())
    label[(3,) * spatial_dims] = 2
    train, held = hold_out_voxels(label, seed=0)
    assert ((train >= 0) & (held >= 0)).sum() == 0
    np.testing.assert_array_equal(np.maximum(train, held), label)
    assert set(np.unique(train)) == {-1, 0, 1, 2}
    assert set(np.unique(held)) == {-1, 0, 1}, "the lone voxel of class 2 stays in training"
    share = (held >= 0).sum() / (label >= 0).sum()
    assert 0.1 < share < 0.45
