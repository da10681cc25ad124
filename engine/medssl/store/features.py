"""Dense features on disk, each under the signature of what they were computed from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.store.atomic import atomic_file, save_array, write_atomically
from medssl.volume import Geometry

FORMAT = "medssl-features-1"


class SignatureMismatchError(InputError):
    """Something on disk was computed from another volume, other weights or other settings."""


@dataclass(frozen=True)
class FeatureSignature:
    """What features depend on; equal signatures mean equal features.

    Args:
        volume: content hash of the volume (`medssl.store.project.content_hash`).
        weights: checksum of the weights file.
        settings: everything else that changes the numbers, JSON values.
    """

    volume: str
    weights: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", json.loads(json.dumps(self.settings)))  # tuples as lists

    @property
    def digest(self) -> str:
        """32 hex digits over all fields."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class StoredFeatures:
    """Arrays of one volume on one grid.

    Args:
        arrays: by name, each (C, *S); "features" is the 64-channel float16 map, "prototypes" the
            learned prototype of every cell where the weights have prototypes.
        geometry: grid of the cells.
    """

    arrays: Mapping[str, NDArray[Any]]
    geometry: Geometry


class FeatureStore:
    """A folder of feature maps; safe to delete, everything in it can be computed again.

    Each entry is a folder named by its signature, with one ``.npy`` per array and ``entry.json``,
    which is written last: an entry without it does not exist.

    Args:
        folder: where entries lie; made when the first one is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, signature: FeatureSignature) -> Path:
        """Folder of an entry, whether it exists or not."""
        return self.folder / f"{signature.volume[:16]}-{signature.digest[:16]}"

    def save(self, signature: FeatureSignature, stored: StoredFeatures) -> Path:
        """Write an entry, or replace it; after a crash there is the old one or none."""
        folder = self.path(signature)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "entry.json").unlink(missing_ok=True)
        for name, array in stored.arrays.items():
            with atomic_file(folder / f"{name}.npy") as file:
                save_array(file, array)
        entry = {
            "format": FORMAT,
            "signature": asdict(signature),
            "geometry": asdict(stored.geometry),
            "arrays": sorted(stored.arrays),
        }
        write_atomically(folder / "entry.json", json.dumps(entry, indent=1))
        return folder

    def load(self, signature: FeatureSignature) -> StoredFeatures | None:
        """The entry of exactly this signature, memory-mapped; None where there is none.

        Raises:
            SignatureMismatchError: the entry says it was computed from something else.
            InputError: the entry is damaged.
        """
        folder = self.path(signature)
        return read_features(folder, signature) if (folder / "entry.json").exists() else None

    def remove(self, volume: str) -> int:
        """Delete every entry of a volume (its content hash); returns how many there were."""
        entries = list(self.folder.glob(f"{volume[:16]}-*"))
        for folder in entries:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        return len(entries)


def read_features(folder: Path, signature: FeatureSignature) -> StoredFeatures:
    """Read one entry and refuse it unless it carries ``signature``.

    Raises:
        SignatureMismatchError: it was computed from another volume, other weights or settings.
        InputError: it is absent or damaged.
    """
    try:
        entry = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        found = FeatureSignature(**entry["signature"])
        if entry["format"] != FORMAT:
            raise InputError(f"{folder}: features of format {FORMAT} are needed; delete the folder")
        if found != signature:
            parts = [
                n for n in ("volume", "weights", "settings") if getattr(found, n) != getattr(signature, n)
            ]
            raise SignatureMismatchError(
                f"{folder}: these features belong to another {' and '.join(parts)}; embed the volume again"
            )
        values = entry["geometry"]
        geometry = Geometry.from_arrays(**values)
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in entry["arrays"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: damaged features ({error}); delete the folder") from error
    if any(array.shape[1:] != geometry.shape for array in arrays.values()):
        raise InputError(f"{folder}: damaged features (shapes differ from the grid); delete the folder")
    return StoredFeatures(arrays, geometry)
