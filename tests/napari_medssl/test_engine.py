"""The engine behind the controllers, on real files and a small random encoder."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.io import read_volume, write_volume
from medssl.jobs.progress import drain
from medssl.store.edits import Edit
from medssl.volume import Geometry, Volume
from napari_medssl.engine import Engine
from napari_medssl.orders import TrainingOrder
from napari_medssl.session import Source


@pytest.fixture
def engine(tiny_weights: dict[int, Path]) -> Engine:
    return Engine(str(tiny_weights[3]), "cpu")


@pytest.fixture
def scans(tmp_path: Path, rng: np.random.Generator) -> list[Path]:
    """Two scans of a bright ball at different places."""
    folder = tmp_path / "scans"
    folder.mkdir()
    grid = Geometry.from_arrays((16, 40, 44), (1.0, 1.0, 1.0), (3.0, 4.0, 5.0))
    z, y, x = np.indices(grid.shape)
    paths = []
    for number, centre in enumerate(((8, 14, 14), (8, 26, 30))):
        distance = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
        array = np.where(distance < 49, 900, 200) + rng.normal(0, 20, grid.shape)
        paths.append(folder / f"case{number}_mr.nii.gz")
        write_volume(Volume(array.astype(np.int16)[None], grid, modality="MR"), paths[-1])
    return paths


def test_open_names_series_only_for_dicom(engine: Engine, scans: list[Path]) -> None:
    opened = drain(engine.open(scans[0]))
    assert opened.series == ()
    assert opened.volume.geometry.shape == (16, 40, 44)
    with pytest.raises(InputError, match="no such file"):
        drain(engine.open(scans[0].with_name("absent.nii")))


def test_prototypes_and_their_counts(engine: Engine, scans: list[Path]) -> None:
    volume = read_volume(scans[0])
    clusters = drain(engine.prototypes(volume, 3))
    assert clusters.volume.geometry == volume.geometry
    assert sum(clusters.counts.values()) == volume.array.size
    numbers, counts = np.unique(clusters.volume.array, return_counts=True)
    assert clusters.counts == dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def test_search_in_the_scan_itself(engine: Engine, scans: list[Path]) -> None:
    volume = read_volume(scans[0])
    hits = drain(engine.search(volume, (8, 14, 14), 5))
    assert {hit.volume for hit in hits} == {volume.id}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    np.testing.assert_allclose(np.subtract(hits[0].voxel, (8, 14, 14)), 0, atol=8)
    # an index of its own per modality: intensities are normalised otherwise
    assert drain(engine.search(replace(volume, modality="CT"), (8, 14, 14), 1))


def test_a_cohort_is_built_opened_and_searched(engine: Engine, scans: list[Path], tmp_path: Path) -> None:
    index = drain(engine.build_index(scans[0].parent, tmp_path / "index"))
    assert "2 scans" in drain(engine.open_index(index))
    hits = drain(engine.search(read_volume(scans[0]), (8, 14, 14), 6, index))
    assert {Path(hit.path) for hit in hits} == set(scans)
    other = drain(engine.search(read_volume(scans[0]), (8, 14, 14), 2, read_volume(scans[1])))
    assert {hit.volume for hit in other} == {read_volume(scans[1]).id}


def test_probe_keeps_its_proposal(engine: Engine, scans: list[Path]) -> None:
    volume = read_volume(scans[0])
    scribbles = volume.with_array(np.zeros(volume.geometry.shape, np.uint8))
    scribbles.array[0, 8, 12:16, 12:16] = 2
    scribbles.array[0, 8, 34:38, 34:38] = 1
    kept: list[Volume] = []
    proposal = drain(engine.probe(volume, scribbles, kept.append))
    assert kept == [proposal]
    assert proposal.array[0, 8, 14, 14] == 2
    assert proposal.array[0, 8, 36, 36] == 1


def test_training_order_names_every_labelled_scan(engine: Engine, scans: list[Path], tmp_path: Path) -> None:
    project = tmp_path / "project"
    ones = np.ones((1, 2, 2), np.uint8)
    for path in scans:
        entered = drain(engine.enter(project, read_volume(path), Source(path=path)))
        for place, value in (((8, 14, 14), 2), ((1, 1, 1), 1)):
            entered.store.journal.append(Edit(place, ones * 0, ones * value))
        entered.store.close()
    order = drain(engine.order_training(project, {"steps": 5}))
    assert order.arguments[:2] == ("finetune", "segmentation")
    assert order.run.parent == project / "runs"
    table = Path(order.arguments[order.arguments.index("--data") + 1])
    assert len(table.read_text().splitlines()) == 3
    mask = read_volume(next(table.parent.glob("*-scribbles.nii.gz")))
    assert set(np.unique(mask.array)) == {0, 1, 2}
    with pytest.raises(InputError, match="training settings: steps"):
        drain(engine.order_training(project, {"steps": 0}))


def label(engine: Engine, project: Path, volume: Volume, source: Source) -> Path:
    """Enter a scan, label two places with two classes; where the project says that the scan lies."""
    entered = drain(engine.enter(project, volume, source))
    n = volume.spatial_dims
    ones = np.ones((1, 2, 2)[-n:], np.uint8)
    for place, value in (((8, 14, 14), 2), ((1, 1, 1), 1)):
        entered.store.journal.append(Edit(place[-n:], ones * 0, ones * value))
    entered.store.close()
    return entered.path


def images(order: TrainingOrder) -> list[Path]:
    with Path(order.arguments[order.arguments.index("--data") + 1]).open(encoding="utf-8") as file:
        return [Path(row["image"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("change", ["moved", "other voxels", "other shape"])
def test_training_goes_on_without_a_scan_that_is_no_longer_the_labelled_one(
    engine: Engine, scans: list[Path], tmp_path: Path, change: str
) -> None:
    project, volume = tmp_path / "project", read_volume(scans[0])
    for path in scans:
        label(engine, project, read_volume(path), Source(path=path))
    scans[0].unlink()
    if change != "moved":
        array = volume.array + 1 if change == "other voxels" else volume.array[:, :9]
        geometry = Geometry.from_arrays(array.shape[1:], volume.geometry.spacing, volume.geometry.origin)
        write_volume(Volume(array, geometry, "MR"), scans[0])
    order = drain(engine.order_training(project, {"steps": 5}))
    assert images(order) == [scans[1].resolve()]
    assert len(order.left_out) == 1
    assert str(scans[0]) in order.left_out[0]
    assert ("no such file" if change == "moved" else "another image") in order.left_out[0]
    scans[1].unlink()
    with pytest.raises(InputError, match=r"no labelled scan.*case0_mr.*case1_mr.*no such file"):
        drain(engine.order_training(project, {"steps": 5}))


def test_training_takes_scans_of_one_kind(engine: Engine, scans: list[Path], tmp_path: Path) -> None:
    project, picture = tmp_path / "project", tmp_path / "picture.png"
    pixels = np.arange(40 * 44, dtype=np.uint16).reshape(1, 40, 44).astype(np.uint8)
    write_volume(Volume(pixels, Geometry.from_arrays((40, 44)), ""), picture)
    for path in (*scans, picture):
        label(engine, project, read_volume(path), Source(path=path))
    volumes, image = [path.resolve() for path in scans], picture.resolve()
    order = drain(engine.order_training(project, {"steps": 5}, dims=3))
    assert (images(order), order.left_out) == (volumes, (f"{image}: has 2 dimensions, this run 3",))
    order = drain(engine.order_training(project, {"steps": 5}, dims=2))
    assert (images(order), len(order.left_out)) == ([image], 2)
    picture.unlink()
    order = drain(engine.order_training(project, {"steps": 5}, dims=2))  # none of the open kind is left
    assert images(order) == volumes


def test_a_scan_without_a_file_is_kept_in_the_project_for_training(
    engine: Engine, scans: list[Path], tmp_path: Path
) -> None:
    project, volume = tmp_path / "project", read_volume(scans[0])
    place = label(engine, project, volume, Source(layer="CT phantom"))
    assert place.parent == (project / "volumes").resolve()
    assert not place.exists()
    assert drain(engine.keep(volume, place)) == place
    np.testing.assert_array_equal(read_volume(place).array, volume.array)
    order = drain(engine.order_training(project, {"steps": 5}))
    assert (images(order), order.left_out) == ([place], ())


def test_training_needs_two_classes(engine: Engine, scans: list[Path], tmp_path: Path) -> None:
    drain(engine.enter(tmp_path / "project", read_volume(scans[0]), Source(path=scans[0]))).store.close()
    with pytest.raises(InputError, match="two classes"):
        drain(engine.order_training(tmp_path / "project", {}))


def test_a_mask_leaves_as_an_image_a_table_and_a_dicom_seg(
    engine: Engine, scans: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = read_volume(scans[0])
    labels = np.zeros(volume.geometry.shape, np.uint8)
    labels[2:4, :5, :6] = 2
    mask, names = volume.with_array(labels), {1: "background", 2: "ball"}
    for ending in (".mha", ".csv"):
        place = tmp_path / f"mask{ending}"
        assert drain(engine.export(mask, place, names, Source(path=scans[0]))) == place
    np.testing.assert_array_equal(read_volume(tmp_path / "mask.mha").array[0], labels)
    with (tmp_path / "mask.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["name"], row["voxels"], float(row["ml"])) == ("ball", "60", 0.06)

    for source in (Source(path=scans[0]), Source(layer="a layer")):
        with pytest.raises(InputError, match="no DICOM series"):
            drain(engine.export(mask, tmp_path / "mask.dcm", names, source))
    called: list[tuple[object, ...]] = []

    def write(mask: Volume, names: object, source: Path, path: Path, *, series: str | None) -> None:
        called.append((mask.array.max(), names, source, path.name, series))

    monkeypatch.setattr("medssl.io.dicom_seg.write_segmentation", write)
    drain(engine.export(mask, tmp_path / "mask.dcm", names, Source(path=tmp_path, series="1.2")))
    assert called == [(2, {2: "ball"}, tmp_path, "mask.dcm", "1.2")]


def test_a_run_without_weights_is_not_trained(engine: Engine, tmp_path: Path) -> None:
    assert engine.trained(tmp_path) == ""
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "model.safetensors").touch()
    assert engine.trained(tmp_path) == "Training ended."
    (tmp_path / "result.json").write_text('{"message": "the network beats the probe"}')
    assert engine.trained(tmp_path) == "the network beats the probe"


def test_an_image_takes_the_weights_for_images(tmp_path: Path, rng: np.random.Generator) -> None:
    engine, path, project = Engine("default", "cpu"), tmp_path / "image.png", tmp_path / "project"
    pixels = rng.integers(0, 255, (1, 96, 112)).astype(np.uint8)
    write_volume(Volume(pixels, Geometry.from_arrays((96, 112)), ""), path)
    image = drain(engine.open(path)).volume
    assert len(drain(engine.prototypes(image, 4)).counts) == 4
    assert len(drain(engine.search(image, (40, 70), 5))) == 5
    entered = drain(engine.enter(project, image, Source(path=path)))
    ones = np.ones((4, 4), np.uint8)
    for place, value in (((8, 14), 2), ((60, 80), 1)):
        entered.store.journal.append(Edit(place, ones * 0, ones * value))
    scribbles = image.with_array(entered.store.restore()[None])
    assert drain(engine.probe(image, scribbles, lambda proposal: None)).array.shape == (1, 96, 112)
    entered.store.close()
    order = drain(engine.order_training(project, {"steps": 5}))
    settings = Path(order.arguments[order.arguments.index("--config") + 1]).read_text()
    assert "init: default-2d" in settings
