"""Phantoms on disk are those of memory, with a table that names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medssl.data.phantom import ct_phantom
from medssl.data.phantom_cohort import write_phantoms
from medssl.data.table import read_data
from medssl.io import read_volume
from medssl.io.tables import read_boxes


def test_scans_boxes_and_splits(tmp_path: Path) -> None:
    rows = read_data(write_phantoms(tmp_path / "phantoms", [("train", [3, 4], 4), ("val", [5], 2)]))
    assert [(row.image.name, row.split) for row in rows] == [
        ("ct-phantom-3.nii.gz", "train"),
        ("ct-phantom-4.nii.gz", "train"),
        ("ct-phantom-5.nii.gz", "val"),
    ]
    phantom = ct_phantom(seed=4, lesions=4)
    np.testing.assert_array_equal(read_volume(rows[1].image).array, phantom.volume.array)
    assert rows[1].modality == "CT"
    assert tuple(read_boxes(rows[1].boxes)) == phantom.boxes
    assert len(read_boxes(rows[2].boxes)) == 2
