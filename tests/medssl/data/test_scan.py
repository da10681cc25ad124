from __future__ import annotations

import numpy as np
import pytest

from medssl.data.scan import read_scan, remarks
from medssl.data.table import Row
from medssl.io import write_volume
from medssl.volume import Geometry, Volume


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("stated", ["", "CT"])
def test_a_modality_in_the_table_counts_more_than_a_guess_and_other_notes_stay(
    tmp_path, spatial_dims, stated
):
    array = np.random.default_rng(0).normal(50, 9, (1, *(6, 7, 8)[-spatial_dims:])).astype(np.float32)
    array.flat[3] = np.nan
    path = tmp_path / "a.nii.gz"
    write_volume(Volume(array, Geometry.from_arrays(array.shape[1:])), path)
    volume = read_scan(Row(image=path, modality=stated))
    assert volume.modality == (stated or "MR")
    assert len(volume.notes) == (1 if stated else 2)
    assert any(note.startswith("modality not stated") for note in volume.notes) == (not stated)
    assert volume.notes[0].startswith("1 NaN or infinite voxels")


def test_notes_that_differ_in_numbers_are_one_line():
    notes = [("a", "3 voxels"), ("b", "no orientation"), ("c", "12 voxels"), ("d", "4 voxels")]
    assert remarks(notes) == ["a: 3 voxels (and 2 more like it)", "b: no orientation"]
    assert remarks([]) == []
