from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medssl.config.prepare import CacheConfig
from medssl.data import scan as data_scan
from medssl.data.cache import Cache
from medssl.data.preparation import Summary, crop_to, foreground_box, prepare_cache, prepare_volume
from medssl.data.table import Row
from medssl.errors import InputError
from medssl.io import write_volume
from medssl.jobs.progress import drain
from medssl.volume import Geometry, Volume


def scan(shape: tuple[int, ...], spacing: tuple[float, ...], seed: int = 0, modality: str = "MR") -> Volume:
    array = np.random.default_rng(seed).uniform(0, 1000, (1, *shape)).astype(np.float32)
    return Volume(array, Geometry.from_arrays(shape, spacing), modality)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch):
    """Files hold the seed of a random scan; "broken" cannot be read."""
    calls: list[str] = []

    def read_volume(path: Path) -> Volume:
        calls.append(path.name)
        text = path.read_text()
        if text.startswith("broken"):
            raise InputError(f"{path}: truncated file")
        edge = int(text)
        return scan((edge, 20, 20), (1.0, 1.0, 1.0), edge)

    monkeypatch.setattr(data_scan, "read_volume", read_volume)
    return calls


def make_rows(folder: Path, *texts: str) -> list[Row]:
    rows = []
    for number, text in enumerate(texts):
        path = folder / f"{number}.nii"
        path.write_text(text)
        rows.append(Row(path, modality="MR", group=f"g{number % 2}", subject=str(number), name=path.name))
    return rows


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_thick_slices_are_brought_into_the_range(spatial_dims: int) -> None:
    volume = scan((10, 31, 32)[:spatial_dims], (5.0, 0.7, 0.1)[:spatial_dims])
    prepared = prepare_volume(volume, CacheConfig(foreground=0))
    assert prepared.spacing == pytest.approx(
        (1.25, 0.7, 0.533) if spatial_dims == 3 else (1.0, 1.24, 0.7), abs=0.05
    )
    assert prepared.ndim == spatial_dims
    assert prepared.values.shape == ((40, 31, 6) if spatial_dims == 3 else (1, 40, 31))
    assert 0 <= prepared.values.min() < prepared.values.max() <= 1


def test_values_are_those_of_the_normaliser_and_ct_is_fixed() -> None:
    array = np.full((1, 8, 8, 8), 300, np.int16)
    volume = Volume(array, Geometry.from_arrays((8, 8, 8)), "CT")
    prepared = prepare_volume(volume, CacheConfig())
    np.testing.assert_allclose(prepared.values, 0.8, atol=1e-6)
    assert prepared.modality == "CT"


def test_air_is_cut_off_but_not_an_empty_scan() -> None:
    values = np.zeros((40, 50, 60), np.float32)
    values[10:20, 15:40, 30:55] = 0.5
    values[0, 0, 0] = 1  # one hot pixel is no body
    assert foreground_box(values, 0.05) == (slice(6, 24), slice(11, 44), slice(26, 59))
    assert foreground_box(np.zeros((4, 4), np.float32), 0.05) == (slice(None),) * 2


def test_cropping_to_a_budget_keeps_the_centre_and_a_useful_size() -> None:
    values = np.zeros((200, 100, 100), np.float32)
    values[100, 50, 50] = 1
    small = crop_to(values, 120 * 100 * 100)
    assert small.shape == (120, 100, 100)
    assert small[60, 50, 50] == 1
    assert crop_to(values, 70**3).size <= 70**3
    assert crop_to(values, 10).shape == (64, 64, 64)
    assert crop_to(values, 10**9).shape == values.shape


def test_a_second_run_reads_only_what_is_new(tmp_path: Path, read: list[str]) -> None:
    rows = make_rows(tmp_path, "10", "broken", "12")
    first = drain(prepare_cache(rows, tmp_path / "c", CacheConfig(), workers=1))
    assert (first.volumes, first.reused) == (2, 0)
    assert len(first.failures) == 1
    assert "truncated file" in first.failures[0][1]
    read.clear()
    (tmp_path / "0.nii").write_text("30")
    more = [*rows, *make_rows(tmp_path / "..", *()), Row(tmp_path / "2.nii", name="again", subject="x")]
    second = drain(prepare_cache(more, tmp_path / "c", CacheConfig(), workers=1))
    assert read == ["0.nii", "1.nii", "2.nii"]  # changed, failed before, new row
    assert (second.volumes, second.reused) == (3, 1)
    cache = Cache.open(tmp_path / "c")
    assert sorted(cache.shape(row)[0] for row in range(3)) == [12, 12, 30]
    assert "truncated" in second.to_text()
    assert second.to_json()["failures"][0]["image"].endswith("1.nii")


def test_closed_half_way_it_goes_on_later(tmp_path: Path, read: list[str]) -> None:
    rows = make_rows(tmp_path, "10", "11", "12", "13")
    steps = prepare_cache(rows, tmp_path / "c", CacheConfig(), workers=1)
    next(steps)
    next(steps)
    steps.close()
    assert len(Cache.open(tmp_path / "c")) == 2
    read.clear()
    drain(prepare_cache(rows, tmp_path / "c", CacheConfig(), workers=1))
    assert read == ["2.nii", "3.nii"]
    assert len(Cache.open(tmp_path / "c")) == 4


def test_a_size_limit_is_kept_and_every_scan_gets_a_share(tmp_path: Path, read: list[str]) -> None:
    rows = make_rows(tmp_path, "1000", "1000", "10")
    limit = 0.1
    result = drain(prepare_cache(rows, tmp_path / "c", CacheConfig(), max_mb=limit, workers=1))
    assert result.megabytes <= limit
    assert result.volumes == 3
    assert result.cropped == 2


def test_many_small_images_keep_to_the_limit(tmp_path: Path) -> None:
    rows = []
    for number in range(120):
        path = tmp_path / f"{number:03d}.nii"
        image = np.random.default_rng(number).integers(0, 255, (1, 20, 20)).astype(np.uint8)
        write_volume(Volume(image, Geometry.from_arrays((20, 20), (1.0, 1.0)), "MR"), path)
        rows.append(Row(path, modality="MR", subject=f"s{number}", name=path.name))
    limit = 0.06
    result = drain(prepare_cache(rows, tmp_path / "c", CacheConfig(), max_mb=limit, workers=1))
    assert sum(file.stat().st_size for file in (tmp_path / "c").iterdir()) <= limit * 1e6 + 1000
    assert result.volumes > 50
    assert len(result.failures) == 120 - result.volumes
    assert all(reason == "over the limit of 0.06 MB" for _, reason in result.failures)


def test_a_cache_made_for_a_limit_is_not_taken_for_one_of_another(tmp_path: Path, read: list[str]) -> None:
    rows, folder = make_rows(tmp_path, "1000", "1000", "10"), tmp_path / "c"

    def prepared(limit: float | None, some: list[Row] = rows) -> int:
        return drain(prepare_cache(some, folder, CacheConfig(), max_mb=limit, workers=1)).reused

    prepared(0.1)
    assert prepared(0.1) == 3
    for limit in (0.2, None):  # what was cropped off is gone
        with pytest.raises(InputError, match=r"cropped to fit --max-mb 0\.1; give that limit again"):
            prepared(limit)
    with pytest.raises(InputError, match=r"MB already; --max-mb 0\.01 needs another folder"):
        prepared(0.01)
    assert prepared(0.1) == 3, "a refusal changes nothing"
    folder = tmp_path / "whole"
    prepared(10)
    assert prepared(None) == prepared(20) == 3, "nothing was cropped"


def test_scans_without_masks_leave_no_holes_beside_those_with(tmp_path: Path) -> None:
    rows = []
    for number in range(12):
        path, mask = tmp_path / f"{number:02d}.nii", tmp_path / f"{number:02d}_label.nii"
        geometry = Geometry.from_arrays((12, 40, 40), (1.0,) * 3)
        image = np.random.default_rng(number).integers(0, 255, (1, 12, 40, 40)).astype(np.uint8)
        write_volume(Volume(image, geometry, "MR"), path)
        write_volume(Volume((image > 99).astype(np.uint8), geometry), mask)
        label = mask if number == 11 else None
        rows.append(Row(path, label=label, modality="MR", subject=f"s{number}", name=path.name))
    limit = 0.3
    folder = tmp_path / "c"
    result = drain(prepare_cache(rows, folder, CacheConfig(labels=True), max_mb=limit, workers=1))
    assert sum(file.stat().st_size for file in folder.iterdir()) <= limit * 1e6
    assert result.failures == ()


def test_a_full_cache_takes_new_facts_and_the_same_command_again(tmp_path: Path, read: list[str]) -> None:
    rows, folder = make_rows(tmp_path, "1000", "1000", "10"), tmp_path / "c"

    def prepared(some: list[Row]) -> Summary:
        return drain(prepare_cache(some, folder, CacheConfig(), max_mb=0.1, workers=1))

    prepared(rows)
    longer = [replace(row, group="a group with a long name " * 20) for row in rows]
    assert prepared(longer).renewed == 3
    assert prepared(longer).reused == 3


def test_nothing_readable_is_an_error(tmp_path: Path, read: list[str]) -> None:
    with pytest.raises(InputError, match=r"no scan could be prepared.*truncated"):
        drain(prepare_cache(make_rows(tmp_path, "broken"), tmp_path / "c", CacheConfig(), workers=1))


def test_masks_are_kept_on_the_grid_of_the_voxels(tmp_path: Path) -> None:
    array = np.zeros((1, 180, 20, 20), np.float32)
    array[:, 10:170, 4:16, 4:16] = 500
    geometry = Geometry.from_arrays((180, 20, 20), (0.25, 1.0, 1.0))
    write_volume(Volume(array.astype(np.int16), geometry, "MR"), tmp_path / "image.nii.gz")
    mask = (array > 100).astype(np.int16) * 3
    write_volume(Volume(mask, geometry, ""), tmp_path / "mask.nii.gz")
    row = Row(
        tmp_path / "image.nii.gz",
        label=tmp_path / "mask.nii.gz",
        classes=("tumour", "cyst"),
        modality="MR",
        subject="s",
        name="image.nii.gz",
    )
    config = CacheConfig(labels=True)
    for limit, slices in ((None, 90), (0.06, 73)):  # of 800 bytes each, voxels and masks, and a line
        folder = tmp_path / f"c{limit}"
        result = drain(prepare_cache([row], folder, config, max_mb=limit, workers=1))
        assert result.failures == ()
        assert limit is None or sum(file.stat().st_size for file in folder.iterdir()) <= limit * 1e6
        cache = Cache.open(folder)
        shape = cache.shape(0)
        assert shape == (slices, 20, 20)  # resampled from 0.25 to 0.5 mm, then cropped to fit
        values, labels = cache.read(0, (0, 0, 0), shape), cache.read_label(0, (0, 0, 0), shape)
        assert ((labels == 3) == (values > 0.3)).mean() > 0.95
        assert cache.label_values == (0, 3)
        assert cache.classes == ("cyst", "tumour")
    assert drain(prepare_cache([row], tmp_path / "cNone", config, workers=1)).reused == 1
    write_volume(Volume(mask // 3, geometry, ""), tmp_path / "mask.nii.gz")
    assert drain(prepare_cache([row], tmp_path / "cNone", config, workers=1)).reused == 0
    assert Cache.open(tmp_path / "cNone").label_values == (0, 1)


def facts(folder: Path, name: str) -> dict[str, str]:
    """What a cache says of its volumes, by subject."""
    cache = Cache.open(folder)
    texts = [cache.column(name)[number] for number in cache.entries[name]]
    return dict(zip([cache.column("subject")[n] for n in cache.entries["subject"]], texts, strict=True))


def test_a_second_run_follows_the_table_without_reading(tmp_path: Path, read: list[str]) -> None:
    rows = [replace(row, split="train") for row in make_rows(tmp_path, "10", "11", "12", "13")]
    drain(prepare_cache(rows, tmp_path / "c", CacheConfig(), workers=1))
    read.clear()
    moved = [
        replace(rows[0], split="test"),
        replace(rows[1], group="other", task="t", classes=("b", "a")),
        rows[2],
    ]
    result = drain(prepare_cache(moved, tmp_path / "c", CacheConfig(), workers=1))
    assert (read, result.volumes, result.reused, result.renewed, result.removed) == ([], 3, 3, 2, 1)
    assert "1 taken out" in result.to_text()
    assert facts(tmp_path / "c", "split") == {"0": "test", "1": "train", "2": "train"}
    assert facts(tmp_path / "c", "group") == {"0": "g0", "1": "other", "2": "g0"}
    assert facts(tmp_path / "c", "class") == {"0": "", "1": "a;b", "2": ""}
    again = drain(prepare_cache(moved, tmp_path / "c", CacheConfig(), workers=1))
    assert (again.renewed, again.removed) == (0, 0)


def test_another_modality_or_subject_is_read_anew(tmp_path: Path, read: list[str]) -> None:
    rows = [replace(row, group="") for row in make_rows(tmp_path, "10", "11", "12")]
    drain(prepare_cache(rows, tmp_path / "c", CacheConfig(), workers=1))
    read.clear()
    changed = [replace(rows[0], modality="CT"), replace(rows[1], subject="x"), replace(rows[2], modality="")]
    result = drain(prepare_cache(changed, tmp_path / "c", CacheConfig(), workers=1))
    assert (read, result.reused) == (["0.nii", "1.nii", "2.nii"], 0)
    assert facts(tmp_path / "c", "modality") == {"0": "CT", "x": "MR", "2": "MR"}
    assert facts(tmp_path / "c", "group") == {"0": "CT", "x": "MR", "2": "MR"}


def test_what_is_left_out_is_not_in_the_cache_either(tmp_path: Path, read: list[str]) -> None:
    rows = make_rows(tmp_path, "10", "11", "12")
    drain(prepare_cache(rows, tmp_path / "c", CacheConfig(), workers=1))
    (tmp_path / "0.nii").write_text("broken")
    (tmp_path / "1.nii").unlink()
    (tmp_path / "1.nii").symlink_to("nowhere")
    result = drain(prepare_cache(rows, tmp_path / "c", CacheConfig(), workers=1))
    assert (result.volumes, result.removed) == (1, 2)
    assert {Path(image).name: reason for image, reason in result.failures} == {
        "0.nii": "truncated file", "1.nii": "the link leads nowhere"
    }  # fmt: skip
    assert set(facts(tmp_path / "c", "split")) == {"2"}


@pytest.mark.parametrize("modality", ["", "MR"])
def test_what_was_repaired_on_reading_is_said(tmp_path: Path, modality: str) -> None:
    geometry = Geometry.from_arrays((12, 12, 12))
    for number in range(3):
        array = np.random.default_rng(number).uniform(0, 300, (1, 12, 12, 12)).astype(np.float32)
        array[0, 2, 3, : number + 1] = np.nan
        write_volume(Volume(array, geometry), tmp_path / f"{number}.nrrd")
    rows = [Row(tmp_path / f"{n}.nrrd", subject=str(n), name=str(n), modality=modality) for n in range(3)]
    summary = drain(prepare_cache(rows, tmp_path / "cache", CacheConfig(), workers=1))
    repairs = [note for _, note in summary.notes if "NaN" in note]
    assert len(repairs) == 3
    assert any("not stated" in note for _, note in summary.notes) == (not modality)
    (line,) = [line for line in summary.to_text().splitlines() if "NaN" in line]
    assert line.startswith(f"{rows[0].image}: ")
    assert line.endswith("(and 2 more like it)")
    assert summary.to_json()["notes"][0]["image"] == str(rows[0].image)
    again = drain(prepare_cache(rows, tmp_path / "cache", CacheConfig(), workers=1))
    assert again.notes == (), "what was there is not read again"
