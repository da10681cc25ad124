from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medssl.commands import export
from medssl.config.export import ExportConfig
from medssl.errors import InputError
from medssl.io import read_volume, write_volume
from medssl.jobs.progress import drain
from medssl.volume import Geometry, Volume


@pytest.fixture
def mask(tmp_path: Path) -> Callable[[int], Path]:
    """Two blocks, classes 1 and 4, on an oblique anisotropic grid."""

    def make(spatial_dims: int) -> Path:
        shape, spacing = (6, 8, 10)[-spatial_dims:], (2.5, 0.8, 0.5)[-spatial_dims:]
        turn = np.eye(spatial_dims)
        c, s = np.cos(0.3), np.sin(0.3)
        turn[-2:, -2:] = [[c, -s], [s, c]]
        array = np.zeros(shape, np.uint8)
        array[(slice(1, 3),) * spatial_dims] = 1
        array[..., 5:8] = 4
        geometry = Geometry.from_arrays(shape, spacing, (7.0, -20.0, 31.0)[-spatial_dims:], turn)
        path = tmp_path / f"mask{spatial_dims}.mha"
        write_volume(Volume(array[None], geometry), path)
        return path

    return make


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_every_format_keeps_voxels_and_place(mask, tmp_path: Path, spatial_dims: int) -> None:
    source = mask(spatial_dims)
    files = tuple(tmp_path / "out" / f"mask{ending}" for ending in (".nii.gz", ".nrrd", ".mha", ".csv"))
    result = drain(export.run(ExportConfig(input=source, out=files, classes={4: "liver"})))
    assert result.files == files
    before = read_volume(source)
    for file in files[:3]:
        after = read_volume(file)
        np.testing.assert_array_equal(after.array, before.array)
        assert after.geometry.matches(before.geometry, 1e-4)
    with files[3].open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert (first["name"], second["name"]) == ("class 1", "liver")
    assert int(first["voxels"]) == 2**spatial_dims
    voxel = 0.8 * 0.5 * (2.5 / 1000 if spatial_dims == 3 else 1)
    assert float(first["ml" if spatial_dims == 3 else "mm2"]) == pytest.approx(2**spatial_dims * voxel)
    assert [int(first[name]) for name in ("y0", "x0", "y1", "x1")] == [1, 1, 3, 3]
    centre = before.geometry.to_world((1.5,) * spatial_dims)
    assert [float(first[name]) for name in ("x_mm", "y_mm")] == pytest.approx(centre[::-1][:2], abs=2e-3)


def refused(match: str, config: ExportConfig) -> None:
    with pytest.raises(InputError, match=match) as caught:
        drain(export.run(config))
    assert "\n" not in str(caught.value)
    assert not any(path.exists() for path in config.out)


def test_nothing_that_is_read_is_written_over(mask, tmp_path: Path) -> None:
    scan, series = mask(3), tmp_path / "series"
    before = scan.read_bytes()
    with pytest.raises(InputError, match="would write over the input"):
        drain(export.run(ExportConfig(input=scan, out=(tmp_path / "first.nii.gz", scan))))
    assert scan.read_bytes() == before
    series.mkdir()
    (series / "slice.dcm").write_bytes(b"slice")
    onto_slice = ExportConfig(input=scan, out=(series / "slice.dcm",), source=series)
    with pytest.raises(InputError, match="would write over the input"):
        drain(export.run(onto_slice))
    assert (series / "slice.dcm").read_bytes() == b"slice"
    refused(
        "a picture holds no volume", ExportConfig(input=scan, out=(tmp_path / "a.nii.gz", tmp_path / "b.png"))
    )


def test_bad_input_is_one_line_and_writes_nothing(mask, tmp_path: Path) -> None:
    source = mask(3)
    good = tmp_path / "good.nii.gz"
    refused("end the name with one of", ExportConfig(input=source, out=(good, tmp_path / "mask.docx")))
    for place in (None, source):  # none, and one that is no DICOM
        seg = ExportConfig(input=source, out=(good, tmp_path / "mask.dcm"), source=place)
        refused("no DICOM series that the mask was drawn on", seg)
    scan = tmp_path / "scan.mha"
    write_volume(read_volume(source).with_array(np.full((6, 8, 10), 0.5, np.float32)), scan)
    refused("holds fractions", ExportConfig(input=scan, out=(good, tmp_path / "mask.csv")))
    refused("no such file", ExportConfig(input=tmp_path / "absent.mha", out=(good,)))
