from __future__ import annotations

import numpy as np
import pytest

from medssl.store.archive import DAMAGE, read_archive, write_archive


def test_round_trip_keeps_types_and_shapes(tmp_path, rng):
    arrays = {"mask": rng.integers(0, 9, (3, 4, 5)).astype(np.uint8), "empty": np.zeros((0, 2), np.float32)}
    write_archive(tmp_path / "a.zip", {"author": "probe", "n": [1, 2]}, arrays)
    header, found = read_archive(tmp_path / "a.zip")
    assert header == {"author": "probe", "n": [1, 2]}
    assert set(found) == set(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype


@pytest.mark.parametrize("cut", [1, 60, 200])
def test_a_cut_file_is_damage(tmp_path, cut):
    path = tmp_path / "a.zip"
    write_archive(path, {}, {"mask": np.arange(1000)})
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DAMAGE):
        read_archive(path)


def test_objects_are_never_unpickled(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        write_archive(tmp_path / "a.zip", {}, {"bad": np.array([{}], dtype=object)})
    assert not (tmp_path / "a.zip").exists()
