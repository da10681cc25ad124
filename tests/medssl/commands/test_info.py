"""What `medssl info` says."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from medssl.commands.info import run
from medssl.config.info import InfoConfig
from medssl.errors import InputError
from medssl.io import write_volume
from medssl.jobs.progress import drain
from medssl.volume import Geometry, Volume


@pytest.fixture
def scan(tmp_path, rng):
    """A CT-like file with three spacings, its z axis towards the feet."""
    geometry = Geometry.from_arrays((4, 5, 6), (3.0, 2.0, 1.5), (7.0, 8.0, 9.0), np.diag([-1.0, 1.0, 1.0]))
    array = rng.integers(-1000, 1000, (1, 4, 5, 6)).astype(np.int16)
    write_volume(Volume(array, geometry), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz", array


def test_facts(scan):
    path, array = scan

    values = json.loads(json.dumps(drain(run(InfoConfig(path=path))).to_json()))

    assert values["shape"] == [4, 5, 6]
    assert values["spacing_mm"] == [3.0, 2.0, 1.5]
    assert values["size_mm"] == [12.0, 10.0, 9.0]
    assert values["origin_mm"] == [9.0, 8.0, 7.0]
    assert values["direction"] == [[1, 0, 0], [0, 1, 0], [0, 0, -1]]
    assert values["orientation"] == "LPI"
    assert values["oblique"] is False
    assert values["modality"] == "CT"
    assert values["intensity"]["min"] == array.min()
    assert values["intensity"]["max"] == array.max()
    assert values["intensity"]["median"] == pytest.approx(np.median(array), abs=1)
    assert values["series"] == []
    assert any("not stated" in note for note in values["notes"])


def test_text_has_a_line_per_fact(scan):
    text = drain(run(InfoConfig(path=scan[0]))).to_text()
    assert "shape       4 x 5 x 6 (z y x), 1 channel, int16" in text
    assert "spacing     3 x 2 x 1.5 mm, extent 12 x 10 x 9 mm" in text
    assert "orientation LPI" in text


def test_a_picture_has_no_spacing(tmp_path):
    volume = Volume(np.arange(42, dtype=np.uint8).reshape(1, 6, 7), Geometry.from_arrays((6, 7)))
    write_volume(volume, tmp_path / "a.png")
    result = drain(run(InfoConfig(path=tmp_path / "a.png")))
    assert result.to_json()["spacing_mm"] is None
    assert "(y x)" in result.to_text()
    assert "spacing     unknown" in result.to_text()


def test_a_bad_path_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        drain(run(InfoConfig(path=tmp_path / "absent")))


def test_loads_neither_torch_nor_pydicom_for_a_nifti_file(scan):
    code = (
        "import sys; from medssl.commands.info import run; from medssl.config.info import InfoConfig;"
        "from medssl.jobs.progress import drain; drain(run(InfoConfig(path=sys.argv[1])));"
        "print(*[name for name in ('torch', 'monai', 'pydicom') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(scan[0])], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
