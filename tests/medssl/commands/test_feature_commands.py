"""embed, search, prototypes, probe and weights, on a small phantom and random weights."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from medssl import cli
from medssl.commands import embed, probe, prototypes, search, weights
from medssl.commands.workspace import Workspace
from medssl.config.embed import EmbedConfig
from medssl.config.probe import ProbeConfig
from medssl.config.prototypes import PrototypesConfig
from medssl.config.search import SearchConfig
from medssl.config.weights import WeightsConfig
from medssl.errors import InputError
from medssl.io import read_volume, write_volume
from medssl.jobs.progress import drain
from medssl.store.features import FeatureStore, SignatureMismatchError
from medssl.store.project import Project
from medssl.volume import Geometry, Volume

SHAPE = (40, 56, 48)
DIRECTION = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def phantom(seed: int = 0) -> Volume:
    """Two organs in a body in air, noisy, on an oblique-ordered grid with anisotropic spacing."""
    rng = np.random.default_rng(seed)
    array = np.full(SHAPE, -1000.0)
    array[4:36, 6:50, 6:42] = 20
    array[8:32, 10:28, 10:38] = 200
    array[8:32, 32:46, 10:38] = -300
    array += rng.normal(size=SHAPE) * 30
    geometry = Geometry.from_arrays(SHAPE, (1.2, 0.8, 0.9), (-30, 12, 40), DIRECTION)
    return Volume(array.astype(np.int16)[None], geometry, "CT", f"phantom{seed}")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, tiny_weights: dict[int, Path]) -> Path:
    """A folder with three scans and their index; do not change it."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "scans").mkdir()
    for seed in range(3):
        write_volume(phantom(seed), folder / "scans" / f"case{seed}.nii.gz")
    drain(embed.run(EmbedConfig(encoder=str(tiny_weights[3]), data=folder / "scans", out=folder / "index")))
    return folder


@pytest.fixture
def folder(cohort: Path, tmp_path: Path) -> Path:
    """A copy of the cohort for this test alone."""
    shutil.copytree(cohort, tmp_path / "copy", copy_function=shutil.copy2)
    return tmp_path / "copy"


def test_a_cohort_becomes_an_index_and_goes_on(folder: Path, tiny_weights: dict[int, Path]) -> None:
    (folder / "scans" / "broken.nii.gz").write_bytes(b"not an image")
    (folder / "scans" / "case2.nii.gz").unlink()
    config = EmbedConfig(encoder=str(tiny_weights[3]), data=folder / "scans", out=folder / "new")
    first = drain(embed.run(config)).to_json()
    assert len(first["volumes"]) == len(first["added"]) == 2
    assert [failure["image"] for failure in first["failures"]] == ["broken.nii.gz"]
    assert first["vectors"] > 100
    again = drain(embed.run(config)).to_json()
    assert again["added"] == []
    assert again["vectors"] == first["vectors"]
    write_volume(phantom(9), folder / "scans" / "case1.nii.gz")  # changed: replaced, not added twice
    changed = drain(embed.run(config)).to_json()
    assert len(changed["added"]) == 1
    assert len(changed["volumes"]) == 2


def test_an_interrupted_cohort_keeps_what_is_done(folder: Path, tiny_weights: dict[int, Path]) -> None:
    steps = embed.run(EmbedConfig(encoder=str(tiny_weights[3]), data=folder / "scans", out=folder / "new"))
    for progress in steps:
        if progress.phase.startswith("2 of 3"):
            break
    steps.close()
    content = json.loads((folder / "new" / "index.json").read_text())
    assert len(content["volumes"]) == 1


def test_an_index_of_other_weights_is_refused(
    folder: Path, tiny_weights: dict[int, Path], tmp_path: Path
) -> None:
    index = folder / "index"
    other = tmp_path / "other.safetensors"
    other.write_bytes(_reseeded(tiny_weights[3]))
    with pytest.raises(SignatureMismatchError, match="another weights"):
        drain(embed.run(EmbedConfig(encoder=str(other), data=folder / "scans", out=index)))
    write_volume(phantom(7), folder / "new.nii.gz")
    query = SearchConfig(index=index, input=folder / "new.nii.gz", at="20,20,20", encoder=str(other))
    with pytest.raises(SignatureMismatchError, match="are not those the index was made with"):
        drain(search.run(query))


def _reseeded(path: Path) -> bytes:
    """The same weights with one tensor changed."""
    from safetensors import safe_open
    from safetensors.numpy import save

    with safe_open(path, "numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        header = file.metadata()
    tensors["projection.mean"] = tensors["projection.mean"] + 1
    return save(tensors, header)


def test_hits_follow_the_contract(folder: Path, tiny_weights: dict[int, Path]) -> None:
    index = folder / "index"
    path = folder / "scans" / "case1.nii.gz"
    config = SearchConfig(index=index, input=path, at="20,20,24", top=6, out=folder / "hits.json")
    drain(search.run(config))
    found: dict[str, Any] = json.loads((folder / "hits.json").read_text())
    name = found["query"]["volume"]
    assert found["query"]["voxel"] == [20, 20, 24]
    assert len(found["hits"]) == 6
    best = found["hits"][0]
    assert best["volume"] == name
    assert best["score"] == pytest.approx(1, abs=1e-4)
    assert np.abs(np.subtract(best["voxel"], [20, 20, 24])).max() <= 4
    assert [hit["score"] for hit in found["hits"]] == sorted(
        (h["score"] for h in found["hits"]), reverse=True
    )
    geometry = read_volume(path).geometry
    for hit in found["hits"]:
        world = geometry.to_world(hit["voxel"])[::-1]  # LPS x, y, z
        assert np.abs(world - hit["mm"]).max() <= max(geometry.spacing) / 2 + 1e-3


def test_a_scan_outside_the_index_finds_its_twin(folder: Path, tiny_weights: dict[int, Path]) -> None:
    index = folder / "index"
    twin = phantom(1)
    twin.array[0, 0, 0, 0] = -999  # another content, the same features
    write_volume(twin, folder / "twin.nrrd")
    found = drain(search.run(SearchConfig(index=index, input=folder / "twin.nrrd", at=(19, 19, 27), top=3)))
    assert found.volume.startswith("twin")
    assert found.hits[0].volume.startswith("case1")
    assert np.abs(np.subtract(found.hits[0].voxel, (19, 19, 27))).max() <= 5
    assert found.hits[0].score > 0.9


def test_a_painted_region_and_a_choice_of_volumes(folder: Path, tiny_weights: dict[int, Path]) -> None:
    index = folder / "index"
    path = folder / "scans" / "case0.nii.gz"
    volume = read_volume(path)
    mask = np.zeros(SHAPE, np.uint8)
    mask[14:22, 14:22, 16:30] = 1
    write_volume(volume.with_array(mask), folder / "mask.nii.gz")
    others = tuple(name for name in json.loads((index / "index.json").read_text())["volumes"])[1:]
    config = SearchConfig(index=index, input=path, region=folder / "mask.nii.gz", within=others)
    found = drain(search.run(config))
    assert mask[found.voxel] == 1
    assert {hit.volume for hit in found.hits} == set(others)
    organ = [hit for hit in found.hits[:4] if 8 <= hit.voxel[0] < 32 and 10 <= hit.voxel[1] < 28]
    assert len(organ) >= 3
    with pytest.raises(InputError, match="--within nobody"):
        drain(search.run(config.model_copy(update={"within": ("nobody",)})))
    write_volume(volume.with_array(mask * 0), folder / "mask.nii.gz")
    with pytest.raises(InputError, match="paint at least one voxel"):
        drain(search.run(config))


def test_hits_replace_neither_the_scan_nor_the_index(folder: Path, tiny_weights: dict[int, Path]) -> None:
    scan, index = folder / "scans" / "case0.nii.gz", folder / "index"
    drain(embed.run(EmbedConfig(encoder=str(tiny_weights[3]), data=scan, out=index)))
    before = {path: path.read_bytes() for path in (scan, *index.iterdir())}
    for out in (scan, index / "index.json"):
        with pytest.raises(InputError, match="would write over the input"):
            drain(search.run(SearchConfig(index=index, input=scan, at="8,8,8", out=out)))
    assert {path: path.read_bytes() for path in before} == before


def test_a_link_that_leads_nowhere_is_left_out_of_an_index(
    folder: Path, tiny_weights: dict[int, Path]
) -> None:
    (folder / "scans" / "absent.nii.gz").symlink_to(folder / "nowhere.nii.gz")
    config = EmbedConfig(encoder=str(tiny_weights[3]), data=folder / "scans", out=folder / "linked")
    found = drain(embed.run(config)).to_json()
    assert len(found["volumes"]) == 3
    assert "check the path or the link" in str(found["failures"])


def test_search_settings_are_checked() -> None:
    with pytest.raises(ValidationError, match="either at"):
        SearchConfig(index=Path("i"), input=Path("v"))
    with pytest.raises(ValidationError, match=r"z,y,x or y,x"):
        SearchConfig(index=Path("i"), input=Path("v"), at="1")
    with pytest.raises(ValidationError, match="valid integer"):
        SearchConfig(index=Path("i"), input=Path("v"), at="1,b,3")


def test_a_voxel_outside_is_one_clear_error(folder: Path, tiny_weights: dict[int, Path]) -> None:
    index = folder / "index"
    config = SearchConfig(index=index, input=folder / "scans" / "case1.nii.gz", at="20,56,24")
    with pytest.raises(InputError, match="voxel 20,56,24 lies outside the image of 40,56,48 voxels"):
        drain(search.run(config))


@pytest.mark.parametrize(("k", "source"), [(3, "learned"), (5, "k-means"), (40, "k-means")])
def test_prototype_map_lies_on_the_scan(
    k: int, source: str, folder: Path, tiny_weights: dict[int, Path]
) -> None:
    path, out = folder / "scans" / "case0.nii.gz", folder / "out" / "prototypes.nii.gz"
    wanted = "auto" if source == "learned" or k == 40 else source
    config = PrototypesConfig(encoder=str(tiny_weights[3]), input=path, out=out, k=k, source=wanted)
    result = drain(prototypes.run(config))
    assert result.source == source
    written = read_volume(out)
    assert written.geometry.matches(read_volume(path).geometry)
    assert written.array.dtype == np.uint8
    assert set(np.unique(written.array)) - {0} == set(range(1, k + 1))
    np.testing.assert_array_equal(written.array, result.labels.array)
    assert sum(result.to_json()["voxels"].values()) == np.prod(SHAPE)
    assert written.array[0, 0, 0, 0] == 0  # air
    assert written.array[0, 20, 20, 24] > 0


def test_a_learned_prototype_that_covers_most_of_a_scan_gives_way_to_clusters(
    folder: Path, tiny_weights: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prototypes, "DOMINANT", 0.01)
    path, out = folder / "scans" / "case0.nii.gz", folder / "out" / "prototypes.nii.gz"
    for asked, used in (("auto", "k-means"), ("learned", "learned")):
        config = PrototypesConfig(encoder=str(tiny_weights[3]), input=path, out=out, k=3, source=asked)
        assert drain(prototypes.run(config)).source == used


def test_probe_writes_the_segmentation_of_the_scan(folder: Path, tiny_weights: dict[int, Path]) -> None:
    path = folder / "scans" / "case2.nii.gz"
    volume = read_volume(path)
    labels = np.zeros(SHAPE, np.uint8)
    labels[20, 15:25, 20:28] = 1
    labels[20, 35:43, 20:28] = 2
    labels[1, 2:12, 4:20] = 3
    write_volume(volume.with_array(labels), folder / "labels.nrrd")
    config = ProbeConfig(
        encoder=str(tiny_weights[3]),
        input=path,
        labels=folder / "labels.nrrd",
        out=folder / "segmentation.nii.gz",
        uncertainty=folder / "uncertainty.nii.gz",
    )
    result = drain(probe.run(config))
    found = read_volume(folder / "segmentation.nii.gz")
    assert found.geometry.matches(volume.geometry)
    assert (found.array[0, 12:28, 14:24, 14:34] == 1).mean() > 0.95
    assert (found.array[0, 12:28, 36:42, 14:34] == 2).mean() > 0.95
    assert result.to_json()["labelled"] == {"1": 80, "2": 64, "3": 160}
    uncertain = read_volume(folder / "uncertainty.nii.gz").array
    assert uncertain.min() >= 0
    assert uncertain.max() <= 1


def test_labels_on_another_grid_are_refused(folder: Path, tiny_weights: dict[int, Path]) -> None:
    path = folder / "scans" / "case2.nii.gz"
    volume = read_volume(path)
    smaller = Volume(np.zeros((1, 40, 56, 47), np.uint8), volume.geometry.cropped((0, 0, 0), (40, 56, 47)))
    write_volume(smaller, folder / "labels.nrrd")
    config = ProbeConfig(
        encoder=str(tiny_weights[3]), input=path, labels=folder / "labels.nrrd", out=folder / "out.nii.gz"
    )
    with pytest.raises(InputError, match="another grid"):
        drain(probe.run(config))
    write_volume(volume.with_array(np.full(SHAPE, 0.5, np.float32)), folder / "labels.nrrd")
    with pytest.raises(InputError, match="holds fractions; a mask holds whole numbers"):
        drain(probe.run(config))
    write_volume(volume.with_array(np.ones((2, *SHAPE), np.uint8)), folder / "labels.nrrd")
    with pytest.raises(InputError, match="has 2 channels; a mask has one"):
        drain(probe.run(config))


def test_the_workspace_computes_once(
    folder: Path, tiny_weights: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace("cpu", project=Project.create(folder / "project"))
    encoder = workspace.encoder(str(tiny_weights[3]))
    assert workspace.encoder(str(tiny_weights[3])) is encoder
    path = folder / "scans" / "case0.nii.gz"
    volume = workspace.volume(path)
    assert workspace.volume(path) is volume
    steps = list(workspace.features_steps(volume, encoder))
    assert len(steps) >= 3
    assert list(workspace.features_steps(volume, encoder)) == []
    found = workspace.warm_features(volume, encoder)
    restored = Workspace("cpu", project=Project.open(folder / "project"))
    again = restored.warm_features(read_volume(path), restored.encoder(str(tiny_weights[3])))
    assert found is not None
    assert again is not None
    np.testing.assert_array_equal(again.features.array, found.features.array)
    assert again.prototypes is not None
    assert again.features.geometry == found.features.geometry
    index = drain(workspace.volume_index_steps(volume, encoder))
    assert drain(workspace.volume_index_steps(volume, encoder)) is index


def test_features_that_cannot_be_kept_are_used_all_the_same(
    folder: Path, tiny_weights: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FeatureStore, "save", full)
    workspace = Workspace("cpu", project=Project.create(folder / "project"))
    volume = workspace.volume(folder / "scans" / "case0.nii.gz")
    encoder = workspace.encoder(str(tiny_weights[3]))
    said: list[str] = []
    found = drain(workspace.features_steps(volume, encoder), lambda p: said.append(p.message))
    assert "features are not kept: No space left on device" in said
    assert workspace.warm_features(volume, encoder) is found


def test_the_workspace_stays_within_its_bound(folder: Path, tiny_weights: dict[int, Path]) -> None:
    workspace = Workspace("cpu", memory_bytes=500_000)
    volumes = [workspace.volume(folder / "scans" / f"case{n}.nii.gz") for n in range(3)]
    assert workspace.bytes_kept <= 500_000
    assert workspace.volume(folder / "scans" / "case2.nii.gz") is volumes[2]
    assert workspace.volume(folder / "scans" / "case0.nii.gz") is not volumes[0]


def test_weights_are_shown_and_checked(tiny_weights: dict[int, Path]) -> None:
    shown = drain(weights.run(WeightsConfig(action="show", name=str(tiny_weights[2])))).to_json()
    assert shown["weights"][0]["spatial_dims"] == 2
    assert len(shown["weights"][0]["sha256"]) == 64
    drain(weights.run(WeightsConfig(action="list")))
    drain(weights.run(WeightsConfig(action="verify")))
    with pytest.raises(InputError, match="name the weights"):
        drain(weights.run(WeightsConfig(action="show")))


def test_an_image_goes_the_same_road(tmp_path: Path, tiny_weights: dict[int, Path]) -> None:
    """PNG in, PNG out: no physical size, two dimensions."""
    rng = np.random.default_rng(0)
    picture = rng.normal(40, 8, (100, 131))
    picture[20:80, 16:60] += 120
    geometry = Geometry.from_arrays(picture.shape, has_spacing=False)
    image = Volume(np.clip(picture, 0, 255).astype(np.uint8)[None], geometry)
    labels = np.zeros(picture.shape, np.uint8)
    labels[24:76:3, 30:46:5], labels[6:94:3, 80:110:9] = 1, 2  # strokes
    for name, array in (("image", image.array), ("labels", labels)):
        write_volume(image.with_array(array), tmp_path / f"{name}.png")
    encoder, path = str(tiny_weights[2]), tmp_path / "image.png"
    workspace = Workspace("cpu")
    drain(embed.run(EmbedConfig(encoder=encoder, data=path, out=tmp_path / "index"), workspace))
    found = drain(search.run(SearchConfig(index=tmp_path / "index", input=path, at="40,32"), workspace))
    assert found.hits[0].score == pytest.approx(1, abs=1e-4)
    assert np.abs(np.subtract(found.hits[0].voxel, (40, 32))).max() <= 4
    assert len(found.hits[0].mm) == 2
    segmented = tmp_path / "segmented.png"
    config = ProbeConfig(encoder=encoder, input=path, labels=tmp_path / "labels.png", out=segmented)
    drain(probe.run(config, workspace))
    written = read_volume(segmented)
    assert written.geometry.matches(read_volume(path).geometry)
    assert (written.array[0, 24:76, 20:56] == 1).mean() > 0.9
    assert (written.array[0, 4:96, 66:126] == 2).mean() > 0.9
    volume = Volume(np.zeros((1, 16, 16, 16), np.float32), Geometry.from_arrays((16,) * 3, (1.0,) * 3), "MR")
    write_volume(volume, tmp_path / "volume.nii.gz")
    asked = SearchConfig(index=tmp_path / "index", input=tmp_path / "volume.nii.gz", at="8,8,8")
    with pytest.raises(InputError, match="the index holds pictures, this scan is one of volumes"):
        drain(search.run(asked, workspace))
    clusters = PrototypesConfig(encoder=encoder, input=path, out=tmp_path / "map.png", k=4, source="k-means")
    assert drain(prototypes.run(clusters, workspace)).to_json()["k"] == 4


def test_an_interrupted_embedding_is_resumed_from_its_folder(cohort, tmp_path, tiny_weights, capsys):
    config = EmbedConfig(
        encoder=str(tiny_weights[3]), data=cohort / "scans", out=tmp_path / "index", device="cpu"
    )
    steps = embed.run(config)
    while not next(steps).phase.startswith("2 of 3"):
        pass
    steps.close()
    assert cli.main(["embed", "--resume", str(config.out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["volumes"]), len(found["added"])) == (3, 2)
