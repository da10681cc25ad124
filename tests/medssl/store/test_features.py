from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.store.features import (
    FeatureSignature,
    FeatureStore,
    SignatureMismatchError,
    StoredFeatures,
    read_features,
)
from medssl.volume import Geometry

SIGNATURE = FeatureSignature("ab" * 32, "cd" * 32, {"spacing_range": (0.5, 1.25)})


def stored(rng: np.random.Generator, spatial_dims: int = 3) -> StoredFeatures:
    shape = (5, 7, 6)[:spatial_dims]
    direction = [[0, 1], [1, 0]] if spatial_dims == 2 else [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    geometry = Geometry.from_arrays(
        shape, (4.0, 3.2, 4.4)[:spatial_dims], (1.5, -2, 3)[:spatial_dims], direction
    )
    arrays = {
        "features": rng.normal(size=(8, *shape)).astype(np.float16),
        "prototypes": rng.integers(0, 9, (1, *shape)).astype(np.uint16),
    }
    return StoredFeatures(arrays, geometry)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_saved_and_loaded_are_equal(spatial_dims: int, rng: np.random.Generator, tmp_path: Path) -> None:
    store, content = FeatureStore(tmp_path), stored(rng, spatial_dims)
    assert store.load(SIGNATURE) is None
    store.save(SIGNATURE, content)
    found = store.load(SIGNATURE)
    assert found is not None
    assert found.geometry == content.geometry
    assert found.arrays.keys() == content.arrays.keys()
    for name, array in content.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)


@pytest.mark.parametrize(
    ("field", "value"),
    [("volume", "ef" * 32), ("weights", "ef" * 32), ("settings", {"spacing_range": [1, 2]})],
)
def test_other_inputs_have_other_features(
    field: str, value: object, rng: np.random.Generator, tmp_path: Path
) -> None:
    store = FeatureStore(tmp_path)
    folder = store.save(SIGNATURE, stored(rng))
    other = replace(SIGNATURE, **{field: value})  # type: ignore[arg-type]
    assert other.digest != SIGNATURE.digest
    assert store.load(other) is None
    with pytest.raises(SignatureMismatchError, match=f"belong to another {field}"):
        read_features(folder, other)


def test_settings_compare_by_value() -> None:
    assert FeatureSignature("a", "b", {"x": (1, 2)}) == FeatureSignature("a", "b", {"x": [1, 2]})


def test_half_written_entries_do_not_exist(rng: np.random.Generator, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    folder = store.save(SIGNATURE, stored(rng))
    (folder / "entry.json").unlink()  # it is written last
    assert store.load(SIGNATURE) is None
    store.save(SIGNATURE, stored(rng))
    assert store.load(SIGNATURE) is not None
    assert not list(folder.glob("*.tmp"))


def test_damage_is_one_clear_error(rng: np.random.Generator, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    folder = store.save(SIGNATURE, stored(rng))
    whole = (folder / "features.npy").read_bytes()
    (folder / "features.npy").write_bytes(whole[:100])
    with pytest.raises(InputError, match="damaged features"):
        store.load(SIGNATURE)
    np.save(folder / "features.npy", np.zeros((8, 5, 7, 5), np.float16))
    with pytest.raises(InputError, match="shapes differ"):
        store.load(SIGNATURE)
    np.save(folder / "features.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(InputError, match="damaged features"):
        store.load(SIGNATURE)
    entry = json.loads((folder / "entry.json").read_text())
    (folder / "entry.json").write_text(json.dumps({**entry, "format": "other"}))
    with pytest.raises(InputError, match="format medssl-features-1"):
        store.load(SIGNATURE)


def test_a_volume_takes_its_features_along(rng: np.random.Generator, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    other = replace(SIGNATURE, volume="ef" * 32)
    for signature in (SIGNATURE, replace(SIGNATURE, weights="ef" * 32), other):
        store.save(signature, stored(rng))
    assert store.remove(SIGNATURE.volume) == 2
    assert store.load(SIGNATURE) is None
    assert store.load(other) is not None
