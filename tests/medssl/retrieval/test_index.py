from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from medssl.errors import InputError, MissingDependencyError
from medssl.retrieval import library
from medssl.retrieval.cells import Cells
from medssl.retrieval.index import FeatureIndex
from medssl.store.features import SignatureMismatchError

SIGNATURE = {"weights": "ab" * 32, "settings": {"stride": 8, "range": (0.5, 1.25)}}


def cells(rng: np.random.Generator, count: int = 200, spatial_dims: int = 3, dim: int = 16) -> Cells:
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    voxels = rng.permuted(np.tile(np.arange(count) * 40, (spatial_dims, 1)), axis=1).T.astype(np.int32)
    return Cells(vectors, voxels, voxels[:, ::-1] * np.float32(0.5))


def filled(rng: np.random.Generator, **options: int) -> tuple[FeatureIndex, dict[str, Cells]]:
    index = FeatureIndex(16, SIGNATURE, **options)
    volumes = {name: cells(rng) for name in ("a", "b", "c")}
    for name, entry in volumes.items():
        index.add(name, entry, path=f"/scans/{name}.nii")
    return index, volumes


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_cell_itself_comes_first(spatial_dims: int, rng: np.random.Generator) -> None:
    index, entry = FeatureIndex(16, SIGNATURE), cells(rng, spatial_dims=spatial_dims)
    index.add("a", cells(rng, spatial_dims=spatial_dims))
    index.add("b", entry)
    for row in (0, 57, 199):
        best = index.search(entry.vectors[row] * 3, 5)[0]
        assert (best.volume, best.voxel) == ("b", tuple(entry.voxels[row]))
        assert best.mm == tuple(entry.mm[row])
        assert best.score == pytest.approx(1, abs=1e-5)


def test_hits_equal_a_sort_of_all_cosines(rng: np.random.Generator) -> None:
    index, volumes = filled(rng)
    query = rng.normal(size=16)
    every = [
        (float(v @ query / np.linalg.norm(query)), name, tuple(x))
        for name, c in volumes.items()
        for v, x in zip(c.vectors, c.voxels, strict=True)
    ]
    expected = sorted(every, reverse=True)[:20]
    found = [(h.score, h.volume, h.voxel) for h in index.search(query, 20, separation_mm=0)]
    assert [e[1:] for e in found] == [e[1:] for e in expected]
    np.testing.assert_allclose([e[0] for e in found], [e[0] for e in expected], atol=1e-5)


@pytest.mark.parametrize("exact_limit", [10_000, 100])
def test_a_removed_volume_never_comes_back(exact_limit: int, rng: np.random.Generator) -> None:
    index, volumes = filled(rng, exact_limit=exact_limit)
    assert index.is_exact == (exact_limit > 600)
    assert index.remove("b") == 200
    assert index.remove("b") == 0
    assert len(index) == 400
    assert set(index.volumes) == {"a", "c"}
    assert all(h.volume != "b" for h in index.search(volumes["b"].vectors[3], 50))
    for name in ("a", "c"):  # the places of the others still belong to their vectors
        best = index.search(volumes[name].vectors[11], 1)[0]
        assert (best.volume, best.voxel) == (name, tuple(volumes[name].voxels[11]))


def test_adding_again_replaces(rng: np.random.Generator) -> None:
    index, volumes = filled(rng)
    index.add("b", cells(rng, count=30))
    assert len(index) == 430
    assert index.search(volumes["b"].vectors[0], 1)[0].score < 0.999


@pytest.mark.parametrize("exact_limit", [10_000, 100])
def test_search_in_some_volumes(exact_limit: int, rng: np.random.Generator) -> None:
    index, volumes = filled(rng, exact_limit=exact_limit)
    hits = index.search(volumes["b"].vectors[3], 30, volumes=["a", "c", "unknown"])
    assert len(hits) == 30
    assert {h.volume for h in hits} == {"a", "c"}
    assert index.search(volumes["b"].vectors[3], 5, volumes=[]) == []


def test_close_neighbours_are_suppressed_only_within_a_volume(rng: np.random.Generator) -> None:
    vector = np.eye(1, 16, dtype=np.float32)
    vectors = np.repeat(vector, 6, 0) + np.linspace(0, 0.05, 6, dtype=np.float32)[:, None]
    voxels = np.array([[0, 0, 0], [4, 0, 0], [8, 0, 0], [20, 0, 0], [24, 0, 0], [60, 0, 0]], np.int32)
    entry = Cells(vectors, voxels, voxels[:, ::-1].astype(np.float32))
    index = FeatureIndex(16, SIGNATURE)
    index.add("a", entry)
    index.add("b", entry)
    found = index.search(vectors[0], 10, separation_mm=16)
    for name in ("a", "b"):
        places = [hit.voxel[0] for hit in found if hit.volume == name]
        assert len(places) == 3
        assert min(abs(x - y) for i, x in enumerate(places) for y in places[:i]) >= 16
    assert len(index.search(vectors[0], 12, separation_mm=0)) == 12
    small = FeatureIndex(16, SIGNATURE)
    small.add("a", Cells(vectors, voxels, voxels[:, ::-1].astype(np.float32), size_mm=4.0))
    assert sorted(hit.voxel[0] for hit in small.search(vectors[0], 9))[-1] == 60
    assert len(small.search(vectors[0], 9)) == 4  # two cells of 4 mm: 0, 8, 20 or 24, 60


@pytest.mark.parametrize("exact_limit", [10_000, 100])
def test_saved_and_loaded_are_equal(exact_limit: int, rng: np.random.Generator, tmp_path: Path) -> None:
    index, volumes = filled(rng, exact_limit=exact_limit)
    index.remove("a")
    index.save(tmp_path / "index")
    index.save(tmp_path / "index")
    loaded = FeatureIndex.load(tmp_path / "index", SIGNATURE)
    query = rng.normal(size=16)
    assert loaded.search(query, 40) == index.search(query, 40)
    assert loaded.volumes == index.volumes == {n: {"path": f"/scans/{n}.nii"} for n in ("b", "c")}
    assert len(list((tmp_path / "index").iterdir())) == 3
    loaded.add("d", cells(rng, count=10))
    assert len(loaded) == 410
    assert loaded.search(volumes["c"].vectors[5], 1)[0].volume == "c"


def test_another_signature_is_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    index, _ = filled(rng)
    index.save(tmp_path)
    other = {**SIGNATURE, "weights": "cd" * 32}
    with pytest.raises(SignatureMismatchError, match="made with another weights"):
        FeatureIndex.load(tmp_path, other)
    with pytest.raises(SignatureMismatchError, match="made with another weights"):
        FeatureIndex(16, other).save(tmp_path)


def test_damage_is_one_clear_error(rng: np.random.Generator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no index in this folder"):
        FeatureIndex.load(tmp_path)
    filled(rng)[0].save(tmp_path)
    vectors = next(tmp_path.glob("*.faiss"))
    vectors.write_bytes(vectors.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged index"):
        FeatureIndex.load(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(InputError, match="format medssl-index-1 is needed"):
        FeatureIndex.load(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_says_so_and_leaves_the_old_index(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = FeatureIndex(16, SIGNATURE)
    index.add("a", cells(rng, count=3000))
    index.save(tmp_path)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("uuid.uuid4", lambda: UUID(int=0))
    (tmp_path / f"vectors-{'0' * 12}.faiss").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        index.save(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert sorted(tmp_path.iterdir()) == before


def test_inverted_lists_report_the_recall_they_reach(rng: np.random.Generator) -> None:
    centres = rng.normal(size=(40, 16))
    vectors = (centres[rng.integers(0, 40, 6000)] + 0.3 * rng.normal(size=(6000, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    voxels = np.arange(18_000, dtype=np.int32).reshape(6000, 3)
    index = FeatureIndex(16, SIGNATURE, exact_limit=5000)
    index.add("a", Cells(vectors, voxels, voxels.astype(np.float32)))
    assert not index.is_exact
    assert index.recall >= 0.95


@pytest.mark.parametrize("exact_limit", [10_000, 100])
def test_cell_at_a_place(exact_limit: int, rng: np.random.Generator) -> None:
    index, volumes = filled(rng, exact_limit=exact_limit)
    index.cell_at("a", volumes["a"].mm[0], within_mm=2)
    index.remove("a")
    entry = volumes["b"]
    found = index.cell_at("b", entry.mm[7] + 1, within_mm=2)
    np.testing.assert_array_equal(found, entry.vectors[7])
    assert index.cell_at("b", entry.mm[7] + 5, within_mm=2) is None
    assert index.cell_at("nobody", entry.mm[7], within_mm=2) is None


def test_images_and_volumes_do_not_mix(rng: np.random.Generator) -> None:
    index, _ = filled(rng)
    with pytest.raises(InputError, match="cannot share an index"):
        index.add("flat", cells(rng, spatial_dims=2))


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(library, "import_module", absent)
    with pytest.raises(MissingDependencyError, match=r"napari-medssl\[cpu\]"):
        FeatureIndex(16, SIGNATURE)


def test_importing_simpleitk_after_faiss_does_no_harm(tmp_path: Path) -> None:
    """Both have a SWIG type for std::vector, and the one imported later wins in both."""
    code = f"""
import faiss, SimpleITK
import numpy as np
from pathlib import Path
from medssl.retrieval.cells import Cells
from medssl.retrieval.index import FeatureIndex
from medssl.retrieval.prototypes import cluster_centres
vectors = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
places = np.arange(900, dtype=np.int32).reshape(300, 3)
for limit in (1000, 100):
    index = FeatureIndex(8, {{}}, exact_limit=limit)
    index.add("a", Cells(vectors, places, places.astype(np.float32)))
    index.save(Path({str(tmp_path)!r}))
    loaded = FeatureIndex.load(Path({str(tmp_path)!r}))
    assert loaded.search(vectors[5], 3) == index.search(vectors[5], 3)
    loaded.remove("a")
assert cluster_centres(vectors, 4).shape == (4, 8)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
