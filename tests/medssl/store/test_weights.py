from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from medssl.errors import InputError
from medssl.store.weights import file_checksum, inherited, read_registry, resolve, write_weights

METADATA = {
    "method": "swav",
    "encoder": {"spatial_dims": 3, "in_channels": 1},
    "preprocessing": {"spacing_range": [0.5, 1.25]},
    "modalities": ["CT"],
}


def registered(folder: Path, **changes: Any) -> Path:
    path = folder / "default" / "model.safetensors"
    sha256 = write_weights(path, {"a": np.arange(6.0, dtype=np.float32)}, METADATA)
    (folder / "default" / "card.md").write_text("# Card\n")
    entry = {
        "file": "default/model.safetensors",
        "sha256": sha256,
        "method": "swav",
        "encoder": METADATA["encoder"],
        "preprocessing": METADATA["preprocessing"],
        "modalities": ["CT"],
        "licence": "BSD-3-Clause",
        **changes,
    }
    (folder / "registry.json").write_text(json.dumps({"weights": {"default": entry}}))
    return path


def test_a_registered_name_gives_file_header_and_card(tmp_path: Path) -> None:
    path = registered(tmp_path)
    record = resolve("default", tmp_path)
    assert (record.path, record.name, record.card, record.licence) == (
        path,
        "default",
        "# Card\n",
        "BSD-3-Clause",
    )
    assert record.metadata == {**METADATA, "format": "medssl-1"}
    assert record.sha256 == file_checksum(path)


def test_a_run_folder_and_a_file_give_the_same(tmp_path: Path) -> None:
    registered(tmp_path / "registry")
    path = tmp_path / "run" / "exported" / "model.safetensors"
    write_weights(path, {"a": np.ones(3)}, METADATA)
    by_folder, by_file = (resolve(p, tmp_path / "registry") for p in (tmp_path / "run", path))
    assert by_folder.path == by_file.path == path
    assert by_folder.sha256 == by_file.sha256


def test_the_same_weights_have_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": np.ones((2, 3), np.float32), "a": np.zeros(4, np.float16)}
    first = write_weights(tmp_path / "1.safetensors", tensors, METADATA)
    assert write_weights(tmp_path / "2.safetensors", dict(reversed(tensors.items())), METADATA) == first


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = registered(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"checksum .* differs from the registry"):
        resolve("default", tmp_path)


def test_a_missing_file_and_an_unknown_name_are_named(tmp_path: Path) -> None:
    registered(tmp_path).unlink()
    with pytest.raises(InputError, match="the file of the weights 'default' is missing"):
        resolve("default", tmp_path)
    with pytest.raises(InputError, match=r"nothing: no such weights.*default"):
        resolve("nothing", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no exported/model\.safetensors in this folder"):
        resolve(tmp_path / "empty", tmp_path)


def test_foreign_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    registered(tmp_path)
    pickled = tmp_path / "model.pt"
    pickled.write_bytes(pickle.dumps({"state_dict": 1}))
    with pytest.raises(InputError, match="pickled checkpoints can run code"):
        resolve(pickled, tmp_path)
    renamed = tmp_path / "model.safetensors"
    renamed.write_bytes(pickled.read_bytes())
    with pytest.raises(InputError, match="not a safetensors file"):
        resolve(renamed, tmp_path)
    save_file({"a": np.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="no medssl header"):
        resolve(tmp_path / "foreign.safetensors", tmp_path)
    write_weights(tmp_path / "poor.safetensors", {"a": np.ones(2)}, {"method": "swav", "encoder": {}})
    with pytest.raises(InputError, match="lacks 'preprocessing'"):
        resolve(tmp_path / "poor.safetensors", tmp_path)


def test_a_registry_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    registered(tmp_path, url="https://example.org")
    with pytest.raises(InputError, match="url: Extra inputs"):
        read_registry(tmp_path)


def test_every_bundled_file_is_whole_and_small() -> None:
    for name, entry in read_registry().items():
        record = resolve(name)
        assert record.path.stat().st_size <= 16 * 2**20
        assert record.card
        assert entry.licence
        assert record.metadata["method"] == entry.method


def test_licence_and_source_are_handed_on() -> None:
    header = {"method": "swav", "licence": "CC BY-NC 4.0", "source": {"file": "swav.pt"}, "modalities": []}
    assert inherited(header) == {"licence": "CC BY-NC 4.0", "source": {"file": "swav.pt"}}
    assert inherited({"method": "swav"}) == {}
