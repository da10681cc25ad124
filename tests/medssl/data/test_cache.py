from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medssl.config.prepare import CacheConfig
from medssl.data import cache as cache_module
from medssl.data.cache import Cache, CacheWriter, decode, encode
from medssl.errors import InputError

FACTS = {
    "version": "1",
    "ndim": 3,
    "spacing": [3.0, 0.5, 0.6],
    "modality": "CT",
    "task": "liver",
    "group": "abdomen",
    "subject": "s",
    "split": "train",
}


def volume(seed: int, shape: tuple[int, int, int] = (70, 30, 65)) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("dtype", "error"), [("uint8", 0.5 / 255), ("int16", 0.5 / 32767), ("float16", 2.5e-4)]
)
def test_storage_error_is_half_a_step(dtype: str, error: float) -> None:
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    stored = encode(values, dtype)
    assert stored.dtype == dtype
    assert np.abs(decode(stored) - values).max() <= error + 1e-7


def test_volumes_come_back_with_their_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "SHARD_BYTES", 200_000)
    writer = CacheWriter(tmp_path / "c", CacheConfig(dtype="float16"))
    for number in range(4):
        writer.add(volume(number), {**FACTS, "source": f"s{number}", "group": f"g{number % 2}"})
    writer.close()
    assert len(list((tmp_path / "c").glob("shard-*.bin"))) == 4
    cache = Cache.open(tmp_path / "c")
    assert len(cache) == 4
    for row in range(4):
        whole = cache.read(row, (0, 0, 0), cache.shape(row))
        np.testing.assert_allclose(whole, volume(row), atol=5e-4)
        assert cache.column("group")[cache.entries["group"][row]] == f"g{row % 2}"
    np.testing.assert_allclose(
        cache.read(2, (60, 3, 60), (9, 8, 5)), volume(2)[60:69, 3:11, 60:65], atol=5e-4
    )
    np.testing.assert_allclose(cache.entries["spacing"][0], [3.0, 0.5, 0.6], rtol=1e-6)


def test_a_torn_write_is_forgotten_and_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    writer = CacheWriter(folder, CacheConfig())
    writer.add(volume(0), {**FACTS, "source": "a"})
    with (folder / "index.jsonl").open("a") as stream:
        stream.write('{"source": "b", "sha')
    with (folder / "shard-00000.bin").open("ab") as stream:
        stream.write(b"half a volume")
    again = CacheWriter(folder, CacheConfig())
    assert again.versions() == {"a": "1"}
    again.add(volume(1), {**FACTS, "source": "c"})
    cache = Cache.open(folder)  # entries.npy was never written
    assert len(cache) == 2
    for row, seed in ((0, 0), (1, 1)):
        np.testing.assert_allclose(
            cache.read(row, (0, 0, 0), (70, 30, 65)), volume(seed), atol=0.5 / 255 + 1e-6
        )


def test_a_changed_source_replaces_the_old_one(tmp_path: Path) -> None:
    writer = CacheWriter(tmp_path / "c", CacheConfig())
    writer.add(volume(0), {**FACTS, "source": "a"})
    writer.add(volume(1, (5, 6, 7)), {**FACTS, "source": "a", "version": "2"})
    writer.close()
    assert writer.nbytes == writer.size(writer.lines["a"])
    cache = Cache.open(tmp_path / "c")
    assert [cache.shape(row) for row in range(len(cache))] == [(5, 6, 7)]


def test_other_settings_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    CacheWriter(tmp_path / "c", CacheConfig())
    with pytest.raises(InputError, match="dtype = uint8, not int16"):
        CacheWriter(tmp_path / "c", CacheConfig(dtype="int16"))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not a cache and not empty"):
        CacheWriter(tmp_path / "d", CacheConfig())
    with pytest.raises(InputError, match="not a training cache"):
        Cache.open(tmp_path / "d")
    with pytest.raises(InputError, match="empty"):
        Cache.open(tmp_path / "c")
    (tmp_path / "c" / "cache.json").write_text(json.dumps({"format": "medssl-cache-0", "settings": {}}))
    with pytest.raises(InputError, match="medssl-cache-0"):
        Cache.open(tmp_path / "c")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    writer = CacheWriter(tmp_path / "c", CacheConfig())
    writer.add(volume(0), {**FACTS, "source": "a"})
    writer.close()
    (tmp_path / "c" / "shard-00000.bin").unlink()
    with pytest.raises(InputError, match="shard-00000"):
        Cache.open(tmp_path / "c").read(0, (0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16"])
def test_masks_and_classes_lie_beside_the_voxels(make_cache, dtype: str) -> None:
    rng = np.random.default_rng(0)
    shapes = [(5, 40, 33), (20, 7, 70), (9, 9, 9)]
    masks = [rng.integers(0, 5, shape).astype(np.uint8) for shape in shapes]
    masks[0][0] = 255
    masks[0][masks[0] == 3] = 4
    masks[2][masks[2] == 3] = 7
    first, second, third = (rng.random(shape) for shape in shapes)
    cache = make_cache(
        [(first, {"class": "b;a"}, masks[0]), (second, {}), (third, {"class": "c"}, masks[2])], dtype
    )
    assert cache.classes == ("a", "b", "c")
    assert cache.class_targets(np.array([2, 0, 1])).tolist() == [[0, 0, 1], [1, 1, 0], [-1, -1, -1]]
    assert cache.label_values == (0, 1, 2, 4, 7)
    assert cache.read_label(1, (0, 0, 0), (2, 2, 2)) is None
    for row in (0, 2):
        start, size = (1, 2, 3), (3, 5, 4)
        expected = masks[row][1:4, 2:7, 3:7]
        np.testing.assert_array_equal(cache.read_label(row, start, size), expected)
    assert (cache.read_label(0, (0, 0, 0), (1, 40, 33)) == -1).all()


def test_a_cache_without_classes_and_masks_can_still_be_read(make_cache) -> None:
    """As those were that were prepared before there were any."""
    made = make_cache([(np.ones((4, 5, 6)), {})])
    folder, names = made.folder, made.names
    old = np.load(folder / "entries.npy")
    kept = [name for name in old.dtype.names if name not in ("class", "labelled")]
    np.save(folder / "entries.npy", old[kept].astype([(name, old.dtype[name]) for name in kept]))
    (folder / "names.json").write_text(
        json.dumps({k: v for k, v in names.items() if k not in ("class", "label")})
    )
    cache = Cache.open(folder)
    assert (cache.classes, cache.label_values) == ((), ())
    assert cache.class_targets(np.array([0])).shape == (1, 0)
    assert cache.read_label(0, (0, 0, 0), (1, 1, 1)) is None
    assert (cache.read(0, (0, 0, 0), (4, 5, 6)) == 1).all()


def test_facts_change_in_place_and_volumes_go(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    writer = CacheWriter(folder, CacheConfig())
    for number, source in enumerate("abc"):
        writer.add(volume(number), {**FACTS, "source": source})
    writer.restate("a", {"split": "test"})
    writer.remove("c")
    writer.close()
    assert writer.nbytes == sum(writer.size(writer.lines[source]) for source in "ab")
    for opened in (Cache.open(folder), reopened(folder)):
        assert [opened.column("split")[number] for number in opened.entries["split"]] == ["test", "train"]
        for row in range(2):
            np.testing.assert_allclose(opened.read(row, (0, 0, 0), (70, 30, 65)), volume(row), atol=3e-3)
    again = CacheWriter(folder, CacheConfig())
    assert set(again.lines) == {"a", "b"}
    again.add(volume(3), {**FACTS, "source": "d"})
    assert again.lines["d"]["offset"] > 2 * volume(0).size, "an old reader may still look at what is gone"


def reopened(folder: Path) -> Cache:
    """As from the index alone."""
    (folder / "entries.npy").unlink()
    return Cache.open(folder)


def test_a_kill_between_the_index_and_the_records_mixes_nothing_up(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    writer = CacheWriter(folder, CacheConfig())
    writer.add(volume(0), {**FACTS, "source": "a", "split": "train"})
    writer.close()
    killed = CacheWriter(folder, CacheConfig())
    killed.restate("a", {"split": "test"})
    killed.add(volume(1), {**FACTS, "source": "b", "split": "reader"})
    found = Cache.open(folder)  # records of the first writer lie beside the index of the second
    assert [found.column("split")[number] for number in found.entries["split"]] == ["test", "reader"]
    killed.close()
    entries = (folder / "entries.npy").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == [
        "cache.json", "entries.npy", "index.jsonl", "shard-00000.bin"
    ]  # fmt: skip
    (folder / "entries.npy").write_bytes(entries[: len(entries) // 2])
    assert len(Cache.open(folder)) == 2


def test_who_reads_leaves_a_torn_line_to_who_writes(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    CacheWriter(folder, CacheConfig()).add(volume(0), {**FACTS, "source": "a"})
    torn = (folder / "index.jsonl").read_text() + '{"source": "b'
    (folder / "index.jsonl").write_text(torn)
    assert len(Cache.open(folder)) == 1
    assert (folder / "index.jsonl").read_text() == torn


@pytest.mark.parametrize("is_labelled", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
@pytest.mark.parametrize("shape", [(1, 7, 9), (40, 30, 20)])
def test_the_size_is_that_of_the_files(
    tmp_path: Path, shape: tuple[int, int, int], dtype: Any, is_labelled: bool
) -> None:
    folder = tmp_path / "c"
    writer = CacheWriter(folder, CacheConfig(dtype=dtype))
    for number in range(40):
        label = np.zeros(shape, np.uint8) if is_labelled else None
        facts = {**FACTS, "source": f"{number:032d}", "subject": f"subject {number}"}
        writer.add(volume(number, shape), facts, label)
    writer.close()
    files = sum(file.stat().st_size for file in folder.iterdir())
    assert files - 1000 <= writer.nbytes <= files * 1.1  # texts that volumes share count for each of them
    assert CacheWriter(folder, CacheConfig(dtype=dtype)).nbytes == writer.nbytes
