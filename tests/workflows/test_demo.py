"""`medssl demo` on a small scan leaves every file it promises, in the geometry of the scan."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

import medssl
from medssl import cli
from medssl.commands.demo import viewer
from medssl.store.labels import LabelStore
from medssl.store.project import Project
from medssl.volume import Geometry, Volume

MASKS = ("prototypes.nii.gz", "probe.nii.gz", "segmentation.nii.gz")


@pytest.fixture
def scan(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Blobs of three intensities, anisotropic and oblique."""
    shape = (24, 44, 40)
    fields = ndimage.gaussian_filter(rng.standard_normal((3, *shape)), (0, 3, 5, 5))
    values = 200 + 300 * fields.argmax(0) + rng.normal(0, 20, shape)
    turn = np.deg2rad(20)
    direction = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    geometry = Geometry.from_arrays(shape, (1.2, 0.8, 0.9), (5, -30, 12), direction)
    path = tmp_path / "scan_t1.nii.gz"
    medssl.write_volume(Volume(values[None].astype(np.float32), geometry, "MR"), path)
    return path


def demo(scan: Path, out: Path, weights: Path, *options: str) -> int:
    words = ["demo", "--input", str(scan), "--out", str(out), "--encoder", str(weights), "--headless"]
    return cli.main([*words, "--steps", "2", "--k", "4", "--strokes", "6", "--device", "cpu", *options])


def test_demo_without_viewer(
    scan: Path,
    tmp_path: Path,
    tiny_weights: dict[int, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(viewer, "find_spec", lambda name: None)
    out = tmp_path / "demo"
    assert demo(scan, out, tiny_weights[3], "--json") == 0
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == report
    assert report["device"] == "cpu"
    assert list(report["seconds"]) == [
        *("read", "embed", "prototypes", "search", "scribble", "probe", "fine-tune", "segment"),
        *("detect", "view"),
    ]
    assert "taken as MR from the name" in report["notes"][0]
    assert "phantom" in report["notes"][1]
    assert "gui" in report["notes"][2]
    source = medssl.read_volume(scan).geometry
    for name in MASKS:
        mask = medssl.read_volume(out / name)
        assert mask.geometry.matches(source), name
        assert mask.array.max() > 0, name
    detections = json.loads((out / "detections.json").read_text(encoding="utf-8"))
    assert detections["model"] == report["figures"]["detections"]["model"] == "phantom-lesions"
    assert detections["note"] == report["figures"]["detections"]["note"]
    assert "fine-tuned on a phantom" in detections["note"]
    assert len(detections["boxes"]) == sum(report["figures"]["detections"]["boxes"].values())
    for box in detections["boxes"]:
        start, stop = np.reshape(box["voxel"], (2, 3))
        assert (start >= 0).all()
        assert (stop <= source.shape).all()
    hits = json.loads((out / "hits.json").read_text(encoding="utf-8"))["hits"]
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_demo_replaces_only_its_own_project(
    scan: Path, tmp_path: Path, tiny_weights: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "demo" / "project" / "notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine", encoding="utf-8")
    assert demo(scan, tmp_path / "demo", tiny_weights[3]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert kept.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("bad", ["input", "encoder"])
def test_a_demo_that_cannot_begin_leaves_the_earlier_one(
    scan: Path, tmp_path: Path, tiny_weights: dict[int, Path], bad: str
) -> None:
    kept = tmp_path / "demo" / "project" / "demo.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}", encoding="utf-8")
    absent = tmp_path / "absent"
    if bad == "input":
        assert demo(absent, tmp_path / "demo", tiny_weights[3]) == 2
    else:
        assert demo(scan, tmp_path / "demo", absent) == 2
    assert kept.read_text(encoding="utf-8") == "{}"


def test_a_demo_of_one_frame_works_on_that_frame_and_keeps_what_was_painted(
    tmp_path: Path,
    tiny_weights: dict[int, Path],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(viewer, "find_spec", lambda name: None)
    fields = ndimage.gaussian_filter(rng.standard_normal((2, 3, 24, 32, 32)), (0, 0, 3, 4, 4))
    values = (200 + 300 * fields.argmax(1) + rng.normal(0, 20, (2, 24, 32, 32))).astype(np.int16)
    path = tmp_path / "time.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(frame) for frame in values]), str(path))
    out = tmp_path / "demo"
    assert demo(path, out, tiny_weights[3], "--frame", "1", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert "the file holds 2 volumes: this is frame 1, counted from 0" in first["notes"]
    project = Project.open(out / "project")
    [entry] = project.volumes
    np.testing.assert_array_equal(medssl.read_volume(project.path_of(entry.id)).array[0], values[1])

    store = LabelStore(project, entry.id)
    store.add_point((3, 3, 3), 1)
    store.close()
    assert demo(path, out, tiny_weights[3], "--json") == 0
    second = json.loads(capsys.readouterr().out)
    [aside] = out.glob("project-*")
    assert f"holds work that is not the demo's: kept as {aside}" in " ".join(second["notes"])
    kept = Project.open(aside)
    assert [a.position for a in LabelStore(kept, entry.id).annotations("point")] == [(3, 3, 3)]
    assert [volume.path for volume in Project.open(out / "project").volumes] == [str(path)]


@pytest.mark.gui
@pytest.mark.slow
def test_demo_with_viewer(scan: Path, tmp_path: Path, tiny_weights: dict[int, Path]) -> None:
    assert demo(scan, tmp_path / "demo", tiny_weights[3]) == 0
    picture = medssl.read_volume(tmp_path / "demo" / "screenshot.png")
    assert picture.array.std() > 10
