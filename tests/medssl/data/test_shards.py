"""A list of caches read like one, and ten million volumes in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medssl.data.dataset import CropDataset
from medssl.data.sampler import FamilySampler
from medssl.data.shards import CacheSet, is_prepared, open_cache
from medssl.errors import InputError


@pytest.fixture
def listed(make_cache, tmp_path: Path) -> Path:
    """Two caches whose names have other numbers, and their list."""
    first = [(np.full((9, 8, 10), 0.1 * n), {"modality": "CT", "group": f"g{n}"}) for n in range(1, 4)]
    second = [
        (np.full((6, 7, 12), 0.5), {"modality": "MR", "group": "g2"}),
        (np.full((6, 7, 12), 0.6), {"modality": "MR", "group": "a", "split": "val"}),
    ]
    for name, volumes in (("first", first), ("second", second)):
        make_cache(volumes, folder=name)
    path = tmp_path / "all.caches"
    path.write_text("# parts\nfirst\n\nsecond\n")
    return path


def test_volumes_are_numbered_through_and_names_are_shared(listed: Path) -> None:
    cache = open_cache(listed)
    assert isinstance(cache, CacheSet)
    assert is_prepared(listed)
    assert len(cache) == 5
    assert cache.column("group") == ["a", "g1", "g2", "g3"]
    assert cache.column("modality") == ["CT", "MR"]
    assert cache.entries["group"].tolist() == [1, 2, 3, 2, 0]
    assert cache.entries["modality"].tolist() == [0, 0, 0, 1, 1]
    assert len(set(cache.entries["subject"].tolist())) == 5
    few = cache.entries[np.array([4, 0, 3])]
    assert [cache.column("group")[n] for n in few["group"]] == ["a", "g1", "g2"]
    assert few["shape"].tolist() == [[6, 7, 12], [9, 8, 10], [6, 7, 12]]
    assert cache.entries[3]["group"] == 2
    for row, (shape, value) in enumerate(
        [((9, 8, 10), 0.1), ((9, 8, 10), 0.2), ((9, 8, 10), 0.3), ((6, 7, 12), 0.5), ((6, 7, 12), 0.6)]
    ):
        assert cache.shape(row) == shape
        np.testing.assert_allclose(cache.read(row, (1, 2, 3), (4, 3, 2)), value, atol=1e-3)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_crops_come_from_every_part(listed: Path, spatial_dims: int) -> None:
    dataset = CropDataset(open_cache(listed), spatial_dims, (4,) * spatial_dims)
    assert len(dataset) == 4, "one volume is of split val"
    sampler = FamilySampler(dataset.families(), 6, seed=0)
    batch = dataset.batch(sampler.draw(0))
    groups = np.asarray(dataset.cache.column("group"))[batch.targets["group"].numpy()]
    assert sorted(set(groups)) == ["g1", "g2", "g3"]
    assert np.bincount(batch.targets["group"].numpy()).tolist() == [0, 2, 2, 2]
    values = batch.image.flatten(1).mean(dim=1).numpy()
    known = {"g1": (0.1,), "g2": (0.2, 0.5), "g3": (0.3,)}
    assert all(min(abs(v - k) for k in known[g]) < 1e-3 for v, g in zip(values, groups, strict=True))


def test_bad_lists_are_refused_with_the_part(listed: Path, make_cache, tmp_path: Path) -> None:
    def refused(text: str, match: str) -> None:
        listed.write_text(text)
        with pytest.raises(InputError, match=match):
            open_cache(listed)

    refused("# nothing\n", "names no cache")
    refused("first\nfirst\n", "names first twice")
    refused("first\n../" + listed.parent.name + "/first\n", "/first twice")
    refused("first\nabsent\n", "absent is no cache")
    make_cache([(np.ones((4, 4, 4)), {})], dtype="uint8", folder="third")
    refused("first\nthird\n", "other settings")
    with pytest.raises(InputError, match="cannot be read"):
        open_cache(tmp_path / "none.caches")


def test_a_list_from_a_windows_editor_is_read(listed: Path) -> None:
    count = len(open_cache(listed))
    listed.write_bytes(b"\xef\xbb\xbf" + listed.read_bytes().replace(b"\n", b"\r\n"))
    assert len(open_cache(listed)) == count


PARTS, VOLUMES = 100, 100_000
"""Ten million volumes in all."""

SAMPLE = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from medssl.data.dataset import CropDataset
from medssl.data.sampler import FamilySampler
from medssl.data.shards import open_cache

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before, begun = peak(), time.process_time()
dataset = CropDataset(open_cache(Path(sys.argv[1])), 3, (8, 8, 8), foreground=0)
families = dataset.families()
sampler = FamilySampler(families, 64, seed=0)
groups, rows = [], []
for step in range(40):
    draw = sampler.draw(step)
    batch = dataset.batch(draw)
    groups.append(batch.targets["group"].numpy())
    rows.append(draw.rows)
counts = np.bincount(np.concatenate(groups)).tolist()
print(json.dumps({
    "volumes": len(dataset), "grown": peak() - before, "seconds": time.process_time() - begun,
    "groups": counts, "parts": len(set((np.concatenate(rows) // 100_000).tolist())),
    "distinct": len(set(np.concatenate(rows).tolist())),
}))
"""


@pytest.mark.slow
def test_ten_million_volumes_are_sampled_in_bounded_memory(make_cache, tmp_path: Path) -> None:
    make_cache([(np.full((8, 8, 8), 0.5), {"group": "g0"})], dtype="uint8", folder="part0")
    part = tmp_path / "part0"
    one = np.load(part / "entries.npy")
    entries = np.repeat(one, VOLUMES)
    entries["subject"] = np.arange(VOLUMES)
    entries["group"] = np.where(np.arange(VOLUMES) % 100 == 0, 1, 0)  # a rare family: one in a hundred
    np.save(part / "entries.npy", entries)
    names = open_cache(part).names
    names |= {"group": ["common", "rare"], "subject": [f"hospital/patient-{n:08d}" for n in range(VOLUMES)]}
    (part / "names.json").write_text(json.dumps(names))
    for number in range(1, PARTS):
        (tmp_path / f"part{number}").symlink_to(part)
    path = tmp_path / "all.caches"
    path.write_text("\n".join(f"part{n}" for n in range(PARTS)) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", SAMPLE, str(path)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["volumes"] == PARTS * VOLUMES
    assert found["grown"] < 40 * PARTS * VOLUMES, "bytes per volume, at most; a path alone has more"
    assert found["groups"] == [1280, 1280], "families are drawn in equal parts"
    assert found["parts"] > 90
    assert found["distinct"] > 2500
    assert found["seconds"] < 60
