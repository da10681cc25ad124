"""Weights by name, run folder or file: found, checked, described; no torch needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from medssl.config.run import explain
from medssl.errors import InputError
from medssl.store.atomic import atomic_file

FORMAT = "medssl-1"
BUNDLED = {2: "default-2d", 3: "default"}
"""Names of the bundled encoders by the dimensions of what they take."""
EXPORTED = Path("exported") / "model.safetensors"
_METADATA_KEY = "medssl"


class RegistryEntry(BaseModel):
    """One line of ``weights/registry.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(description="path relative to registry.json")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="checksum of the file")
    method: str
    encoder: dict[str, Any]
    preprocessing: dict[str, Any]
    modalities: tuple[str, ...] = ()
    licence: str


@dataclass(frozen=True)
class WeightsRecord:
    """A weights file that exists, with what its header says.

    Args:
        name: registry name, or the path as given.
        path: the safetensors file.
        metadata: header: format, method, encoder, preprocessing, heads, modalities.
        card: text of the model card beside the file, empty where there is none.
        licence: from the registry, or from the header of imported weights; empty for own files.
    """

    name: str
    path: Path
    metadata: Mapping[str, Any]
    card: str = ""
    licence: str = ""

    @cached_property
    def sha256(self) -> str:
        """Checksum of the file: the signature of everything computed with these weights."""
        return file_checksum(self.path)


def registry_folder() -> Path:
    """Where the bundled weights lie: the package data of medssl, in a wheel as in a clone."""
    with resources.as_file(resources.files("medssl.bundled_weights")) as folder:
        return folder


def suited(name: str, spatial_dims: int) -> str:
    """``name``; the bundled weights for images where those for volumes are named and an image is given.

    Args:
        name: registry name, run folder or file.
        spatial_dims: of the input, 2 or 3.
    """
    return BUNDLED[spatial_dims] if name == BUNDLED[3] else name


def anchored(name: str) -> str:
    """The same weights from any folder: a registry name as it is, what lies on disk by its absolute path."""
    is_file = name not in read_registry() and Path(name).exists()
    return str(Path(name).resolve()) if is_file else name


def inherited(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the header of weights hands on to whatever is trained from them: licence and source."""
    return {name: metadata[name] for name in ("licence", "source") if name in metadata}


def read_registry(folder: Path | None = None) -> dict[str, RegistryEntry]:
    """The registry by name.

    Args:
        folder: folder of ``registry.json``; the bundled one by default.

    Raises:
        InputError: the file is absent or does not fit.
    """
    path = (folder or registry_folder()) / "registry.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {name: RegistryEntry.model_validate(entry) for name, entry in values["weights"].items()}
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from error
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a weights registry ({error}); install medssl again") from error


def resolve(name_or_path: str | Path, folder: Path | None = None) -> WeightsRecord:
    """Find weights: a registry name, a run folder, or a file, in this order.

    Args:
        name_or_path: "default", a folder that a training run wrote, or a ``.safetensors`` file.
        folder: folder of another registry, for tests.

    Raises:
        InputError: nothing there, the checksum of a registered file differs, or the file is foreign.
    """
    text = str(name_or_path)
    registry = read_registry(folder)
    if text in registry:
        entry = registry[text]
        path = (folder or registry_folder()) / entry.file
        if not path.is_file():
            raise InputError(f"{path}: the file of the weights {text!r} is missing; install medssl again")
        record = WeightsRecord(text, path, read_metadata(path), _card(path), entry.licence)
        if record.sha256 != entry.sha256:
            raise InputError(
                f"{path}: checksum {record.sha256[:12]}... differs from the registry's "
                f"{entry.sha256[:12]}...; the file was changed or cut off, install medssl again"
            )
        return record
    path = Path(name_or_path)
    if path.is_dir():
        if not (path / EXPORTED).is_file():
            raise InputError(
                f"{path}: no {EXPORTED.as_posix()} in this folder; give a finished run or a file"
            )
        path = path / EXPORTED
    if not path.is_file():
        known = ", ".join(sorted(registry)) or "none"
        raise InputError(f"{text}: no such weights; give a run folder, a file or a name out of: {known}")
    metadata = read_metadata(path)
    return WeightsRecord(text, path, metadata, _card(path), str(metadata.get("licence", "")))


def read_metadata(path: Path) -> dict[str, Any]:
    """The header of a weights file, checked.

    Raises:
        InputError: not a safetensors file, or one that medssl did not write.
    """
    if path.suffix in {".pt", ".pth", ".pkl", ".ckpt", ".bin", ".tar"}:
        raise InputError(
            f"{path}: pickled checkpoints can run code when loaded and are refused; "
            "give a .safetensors file that medssl wrote"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file, or cut off ({error})") from error
    try:
        metadata = json.loads(header[_METADATA_KEY])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: holds tensors but no medssl header; public checkpoints need an import"
        ) from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise InputError(
            f"{path}: weights of format {FORMAT} are needed; use the version that wrote the file"
        )
    for name in ("method", "encoder", "preprocessing"):
        if name not in metadata:
            raise InputError(f"{path}: the medssl header lacks {name!r}; export the run again")
    return metadata


def write_weights(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> str:
    """Write a weights file that `resolve` and `read_metadata` accept; atomic.

    Args:
        path: the ``.safetensors`` file; its folder is made.
        tensors: arrays by key: ``backbone.encoder.*``, ``backbone.decoder.*``, ``head.*``,
            ``prototypes.weight``, ``projection.weight`` (64, F), ``projection.mean`` (F,).
        metadata: method, encoder, preprocessing and what else describes the weights; JSON values.

    Returns:
        SHA-256 of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {_METADATA_KEY: json.dumps({**metadata, "format": FORMAT}, sort_keys=True)}
    arrays = {key: np.ascontiguousarray(value) for key, value in sorted(tensors.items())}
    with atomic_file(path) as file:
        file.write(save(arrays, header))
    return file_checksum(path)


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _card(path: Path) -> str:
    card = path.with_name("card.md")
    return card.read_text(encoding="utf-8") if card.is_file() else ""
