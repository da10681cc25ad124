"""What stays warm between requests: encoders, volumes, features, indices."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.io import read_volume
from medssl.jobs.progress import Progress, Steps
from medssl.retrieval.cells import POOLING, foreground, index_cells
from medssl.retrieval.index import FeatureIndex
from medssl.store.features import FeatureSignature, FeatureStore, StoredFeatures
from medssl.store.project import Project, content_hash
from medssl.store.weights import BUNDLED, resolve, suited
from medssl.volume import Geometry, Volume
from medssl.volume.working_grid import working_geometry

if TYPE_CHECKING:
    import torch

    from medssl.inference.embed import Embedding
    from medssl.inference.load import LoadedEncoder

EMBEDDING = 1
"""Raised when the same weights and the same volume begin to give other features."""

MEMORY_BYTES = 4 * 2**30
"""Default bound of everything that is kept."""


class Workspace:
    """A cache bounded in bytes; the least recently used goes first.

    Every method may be called with a volume that came from a file or from a viewer. Used only on the
    device thread: there are no locks.

    Args:
        device: "auto", "cpu", "cuda", "cuda:i".
        memory_bytes: bound of encoders, volumes, features and indices together; one value larger than
            the bound is kept until the next.
        project: keeps features on disk too, across sessions; None keeps them in memory only.
    """

    def __init__(
        self,
        device: str = "auto",
        memory_bytes: int = MEMORY_BYTES,
        project: Project | None = None,
    ) -> None:
        self._device = device
        self._memory_bytes = memory_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._hashes: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._store: FeatureStore | None = None
        self.use_project(project)

    def use_project(self, project: Project | None) -> None:
        """Keep features in this project's folder from now on."""
        self._store = None if project is None else FeatureStore(project.features_folder)

    @property
    def bytes_kept(self) -> int:
        """Size of everything in the cache."""
        return sum(size for _, size in self._kept.values())

    @property
    def device(self) -> torch.device:
        """Where encoders run."""
        from medssl.inference.device import choose_device

        return choose_device(self._device)

    def encoder(self, name: str, spatial_dims: int = 3) -> LoadedEncoder:
        """Weights by registry name, run folder or file; loaded again only when the file changed.

        Args:
            name: "default" becomes "default-2d" for images.
            spatial_dims: of the input, 2 or 3.
        """
        from medssl.inference.load import load_record

        record = resolve(suited(name, spatial_dims))
        key = ("encoder", str(record.path.resolve()), record.path.stat().st_mtime_ns)
        kept: LoadedEncoder | None = self._recall(key)
        if kept is None:
            kept = load_record(record).to(self.device)
            self._keep(key, kept, sum(p.numel() * p.element_size() for p in kept.parameters()))
        return kept

    def suited(self, name: str, scans: Iterable[Path]) -> str:
        """``name``; where it is "default", the bundled weights for what the first readable scan is.

        Args:
            name: registry name, run folder or file.
            scans: of a cohort; those that cannot be read are passed over.
        """
        if name != BUNDLED[3]:
            return name
        for scan in scans:
            with suppress(InputError):
                return suited(name, self.volume(scan).spatial_dims)
        return name

    def scan_steps(self, path: Path, series: str | None = None, frame: int = 0) -> Steps[Volume]:
        """A scan by path; what was chosen, inferred or repaired on reading is said.

        Args:
            path: file or DICOM folder.
            series: which DICOM series; None takes the largest.
            frame: which volume of a 4D image.
        """
        yield Progress(0, None, "reading", message=f"reading {path}")
        volume = self.volume(path, series, frame)
        if volume.notes:
            yield Progress(0, None, "reading", message="; ".join(volume.notes), notice=True)
        return volume

    def volume(self, path: Path, series: str | None = None, frame: int = 0) -> Volume:
        """A scan by path; read again only when the file changed."""
        key = ("volume", str(path.resolve()), series, frame, path.stat().st_mtime_ns if path.exists() else 0)
        kept: Volume | None = self._recall(key)
        if kept is None:
            kept = read_volume(path, series, frame)
            self._keep(key, kept, kept.array.nbytes)
        return kept

    def hash_of(self, volume: Volume) -> str:
        """Content hash of a volume, computed once per array."""
        key = id(volume.array)
        known = self._hashes.get(key)
        if known is not None and known[0]() is volume.array:
            return known[1]
        value = content_hash(volume)
        self._hashes = {k: v for k, v in self._hashes.items() if v[0]() is not None}
        self._hashes[key] = weakref.ref(volume.array), value
        return value

    def features_steps(self, volume: Volume, encoder: LoadedEncoder) -> Steps[Embedding]:
        """Features and prototypes of a volume: from memory, from the project's folder, or computed.

        Args:
            volume: a scan from anywhere.
            encoder: from `encoder`.
        """
        from medssl.inference.embed import describe_steps

        kept = self.warm_features(volume, encoder)
        if kept is None:
            kept = yield from describe_steps(volume, encoder)
            signature = self.signature(volume, encoder)
            self._keep(("features", signature.digest), kept, kept.features.array.nbytes)
            if self._store is not None:
                arrays = {"features": kept.features.array}
                if kept.prototypes is not None:
                    arrays["prototypes"] = kept.prototypes.array
                try:
                    self._store.save(signature, StoredFeatures(arrays, kept.features.geometry))
                except OSError as error:  # they only save time: whoever asked for them has them
                    said = f"features are not kept: {error.strerror or error}"
                    yield Progress(1, 1, "embedding", message=said, notice=True)
        return kept

    def warm_features(self, volume: Volume, encoder: LoadedEncoder) -> Embedding | None:
        """Features from memory or from the project's folder; None where they must be computed."""
        from medssl.inference.embed import Embedding

        signature = self.signature(volume, encoder)
        key = ("features", signature.digest)
        kept: Embedding | None = self._recall(key)
        if kept is None and self._store is not None:
            stored = self._store.load(signature)
            if stored is not None:
                features = Volume(stored.arrays["features"], stored.geometry, volume.modality, volume.id)
                prototypes = stored.arrays.get("prototypes")
                kept = Embedding(features, None if prototypes is None else features.with_array(prototypes))
                self._keep(key, kept, kept.features.array.nbytes)
        return kept

    def index(self, folder: Path) -> FeatureIndex:
        """A saved index; loaded again only when it changed. Do not alter it in place."""
        entry = folder / "index.json"
        key = ("index", str(folder.resolve()), entry.stat().st_mtime_ns if entry.exists() else 0)
        kept: FeatureIndex | None = self._recall(key)
        if kept is None:
            kept = FeatureIndex.load(folder)
            if self._device != "cpu":
                kept.to_gpu()  # where this build of FAISS and this machine can
            self._keep(key, kept, len(kept) * kept.dim * 4)
        return kept

    def volume_index_steps(self, volume: Volume, encoder: LoadedEncoder) -> Steps[FeatureIndex]:
        """An index of one volume alone, for finding similar places in it."""
        key = ("volume index", self.signature(volume, encoder).digest)
        kept: FeatureIndex | None = self._recall(key)
        if kept is None:
            found = yield from self.features_steps(volume, encoder)
            kept = FeatureIndex(len(found.features.array), index_signature(encoder))
            cells = index_cells(found.features, volume)
            kept.add(volume.id, cells, sha256=self.hash_of(volume))
            self._keep(key, kept, cells.vectors.nbytes)
        return kept

    def foreground(self, volume: Volume, cells: Geometry) -> NDArray[np.bool_]:
        """Which cells are not air, see `medssl.retrieval.cells.foreground`."""
        key = ("foreground", self.hash_of(volume), volume.modality, cells)
        kept: NDArray[np.bool_] | None = self._recall(key)
        if kept is None:
            kept = foreground(volume, cells)
            self._keep(key, kept, kept.nbytes)
        return kept

    def signature(self, volume: Volume, encoder: LoadedEncoder) -> FeatureSignature:
        """What the features of a volume depend on."""
        grid = working_geometry(volume.geometry, encoder.spacing_range)
        settings = {"embedding": EMBEDDING, "grid": grid.shape, "modality": volume.modality}
        return FeatureSignature(self.hash_of(volume), encoder.signature, settings)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._hashes.clear()

    def _recall(self, key: Hashable) -> Any:
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def _keep(self, key: Hashable, value: Any, size: int) -> None:
        self._kept[key] = value, size
        while self.bytes_kept > self._memory_bytes and len(self._kept) > 1:
            self._kept.popitem(last=False)


def index_signature(encoder: LoadedEncoder) -> dict[str, Any]:
    """What the vectors of an index depend on, apart from the volumes."""
    stride = [s * POOLING for s in encoder.features.levels[0].stride]
    return {
        "weights": encoder.signature,
        "settings": {
            "embedding": EMBEDDING,
            "stride": stride,
            "spacing_range": list(encoder.spacing_range),
        },
    }
