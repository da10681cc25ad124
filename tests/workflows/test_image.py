"""A PNG through the commands, with the bundled weights for images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from scipy import ndimage

import medssl
from medssl import cli
from medssl.errors import InputError
from medssl.store.weights import suited
from medssl.volume import Geometry, Volume

SHAPE = (144, 176)
DISCS = ((40, 44, 22), (96, 128, 24))  # row, column, radius; of one tissue


@pytest.fixture
def truth() -> NDArray[np.uint8]:
    """1: background tissue, 2: the two discs."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = [np.hypot(rows - r, columns - c) < radius for r, c, radius in DISCS]
    return np.where(np.logical_or(*inside), 2, 1).astype(np.uint8)


@pytest.fixture
def image(tmp_path: Path, truth: NDArray[np.uint8], rng: np.random.Generator) -> Path:
    """Tissues of equal mean that differ in the grain of their texture."""
    fine, coarse = (ndimage.gaussian_filter(rng.standard_normal(SHAPE), sigma) for sigma in (0.6, 3.0))
    values = 128 + 40 * np.where(truth == 1, fine / fine.std(), coarse / coarse.std())
    path = tmp_path / "slice.png"
    write(values.clip(0, 255).astype(np.uint8), path)
    return path


def write(array: NDArray[np.uint8], path: Path) -> None:
    medssl.write_volume(Volume(array[None], Geometry.from_arrays(array.shape), ""), path)


def report(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict:
    capsys.readouterr()
    assert cli.main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_bundled_weights_know_what_they_take() -> None:
    assert medssl.load_encoder("default-2d").spatial_dims == 2
    assert [suited(name, n) for name in ("default", "run") for n in (2, 3)] == [
        *("default-2d", "default"),
        *("run", "run"),
    ]


def test_a_png_goes_all_the_way(
    image: Path, truth: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "spacing" in json.dumps(report(capsys, "info", image))
    # the probe: from 40 voxels per class to every pixel
    rng = np.random.default_rng(0)
    scribbles = np.zeros(SHAPE, np.uint8)
    for value in (1, 2):
        scribbles.ravel()[rng.choice(np.flatnonzero(truth == value), 40, replace=False)] = value
    write(scribbles, tmp_path / "scribbles.png")
    words = ("--input", image, "--labels", tmp_path / "scribbles.png", "--out", tmp_path / "probe.png")
    report(capsys, "probe", *words)  # no encoder is named
    found = medssl.read_volume(tmp_path / "probe.png").array[0]
    dice = 2 * ((found == 2) & (truth == 2)).sum() / ((found == 2).sum() + (truth == 2).sum())
    assert dice > 0.85
    # the map: clusters belong to one tissue each
    report(capsys, "prototypes", "--input", image, "--out", tmp_path / "map.png", "--k", "6")
    clusters = medssl.read_volume(tmp_path / "map.png").array[0]
    assert clusters.shape == SHAPE
    purity = sum(max(((clusters == c) & (truth == t)).sum() for t in (1, 2)) for c in np.unique(clusters))
    assert purity / truth.size > 0.8
    # the search: its best hits are of the tissue it starts from, one pixel in seven
    report(capsys, "embed", "--encoder", "default", "--data", image, "--out", tmp_path / "index")
    at = ",".join(map(str, DISCS[0][:2]))
    hits = report(capsys, "search", "--index", tmp_path / "index", "--input", image, "--at", at, "--top", "3")
    voxels = np.array([hit["voxel"] for hit in hits["hits"]])
    assert (truth[tuple(voxels.T)] == 2).all()


def test_a_cohort_decides_which_weights_it_takes(
    image: Path, truth: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(truth, tmp_path / "truth.png")
    table = tmp_path / "table.csv"
    scan = Volume(np.ones((1, 16, 16, 16), np.float32), Geometry.from_arrays((16,) * 3), "MR")
    medssl.write_volume(scan, tmp_path / "scan.nii.gz")
    # an index holds scans of one kind: the first one's
    table.write_text("image\nslice.png\nscan.nii.gz\n")
    found = report(capsys, "embed", "--data", table, "--out", tmp_path / "index")
    (entered,) = found["volumes"]
    assert entered.startswith("slice")
    (left,) = found["failures"]
    assert "has 3 dimensions, the encoder 2; for example default takes it" in left["reason"]
    # a fine-tuning starts from weights that fit
    table.write_text("image,label,subject,split\nslice.png,truth.png,a,train\nslice.png,truth.png,b,val\n")
    words = ("finetune", "segmentation", "--mode", "probe", "--data", table, "--out", tmp_path / "run")
    assert report(capsys, *words)["use"] == "probe"
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["init"] == "default-2d"


def test_a_volume_is_refused_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    scan = Volume(rng.random((1, 16, 16, 16)).astype(np.float32), Geometry.from_arrays((16,) * 3), "MR")
    with pytest.raises(InputError, match=r"for example default$"):
        medssl.embed_volume(scan, medssl.load_encoder("default-2d"))
