"""`medssl demo` on a small scan leaves every file it promises, in the geometry of the scan."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import medssl
from medssl import cli
from medssl.commands.demo import viewer
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
    assert "phantom" in report["notes"][0]
    assert "gui" in report["notes"][1]
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


@pytest.mark.gui
@pytest.mark.slow
def test_demo_with_viewer(scan: Path, tmp_path: Path, tiny_weights: dict[int, Path]) -> None:
    assert demo(scan, tmp_path / "demo", tiny_weights[3]) == 0
    picture = medssl.read_volume(tmp_path / "demo" / "screenshot.png")
    assert picture.array.std() > 10
