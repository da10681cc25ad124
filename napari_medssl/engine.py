"""What the controllers ask of `medssl`: every wish is a generator, every answer a value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medssl.io import SeriesInfo, list_series, read_volume, write_volume
from medssl.jobs.progress import Progress, Steps
from medssl.store.labels import LabelStore
from medssl.store.project import PALETTE, LabelClass, Project
from medssl.volume import Volume
from napari_medssl.orders import TrainingOrder, order_training
from napari_medssl.session import Hit, Source

if TYPE_CHECKING:
    from medssl.commands.workspace import Workspace

FIRST_CLASSES = (("background", PALETTE[1]), ("target", PALETTE[0]))
"""No grey: it could not be seen on a scan."""
PROPOSAL = "probe"


@dataclass(frozen=True)
class Opened:
    """A scan that was read: where from, the series of its folder as (uid, text), and the one taken."""

    volume: Volume
    path: Path
    series: tuple[tuple[str, str], ...] = ()
    chosen: str = ""


@dataclass(frozen=True, eq=False)
class Entered:
    """What the project keeps about a scan.

    Args:
        store: its labels.
        classes: of the project.
        scribbles: (*S) as the edits left them.
        counts: labelled voxels by class.
        path: file or folder of the scan; not there yet where the scan came without a file.
        proposal: (*S) the last one of the probe.
    """

    store: LabelStore
    classes: tuple[LabelClass, ...]
    scribbles: NDArray[np.uint8]
    counts: Mapping[int, int]
    path: Path
    proposal: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Clusters:
    """A prototype map on the scan's own voxels.

    Args:
        volume: the map.
        counts: voxels of each number (0: outside the body).
        source: "learned", "k-means", or "" where that is not known.
    """

    volume: Volume
    counts: Mapping[int, int]
    source: str = ""

    @classmethod
    def of(cls, volume: Volume) -> Clusters:
        """Count the voxels of a map that was read from a file."""
        numbers, counts = np.unique(volume.array, return_counts=True)
        return cls(volume, {int(n): int(c) for n, c in zip(numbers, counts, strict=True)})


class Engine:
    """The commands of `medssl` for one viewer.

    Nothing is computed before a generator is driven, on the device thread; what stays warm between
    requests (encoder, features, index) lives in a workspace that only that thread touches.

    Args:
        encoder: weights to use.
        device: "auto", "cpu" or "cuda:0".
    """

    def __init__(self, encoder: str = "default", device: str = "auto") -> None:
        self.encoder = encoder
        self.device = device
        self._made: Workspace | None = None

    @property
    def _workspace(self) -> Workspace:
        if self._made is None:
            from medssl.commands.workspace import Workspace

            self._made = Workspace(self.device)
        return self._made

    def open(self, path: Path, series: str = "") -> Steps[Opened]:
        """Read a file or folder; of several series the named or the largest one."""
        yield Progress(0, 2, "looking for series")
        readable = [entry for entry in list_series(path) if not entry.reason]
        chosen = series or (readable[0].uid if readable else "")
        yield Progress(1, 2, "reading")
        volume = read_volume(path, chosen or None)
        texts = tuple((entry.uid, _series_text(entry)) for entry in readable)
        return Opened(volume, path, texts, chosen)

    def read_layer(self, read: Callable[[], Volume]) -> Steps[Volume]:
        """Read a layer whose voxels are not in memory."""
        yield Progress(0, 1, "reading")
        return read()

    def export(self, mask: Volume, path: Path, names: Mapping[int, str], source: Source) -> Steps[Path]:
        """Write a mask in its own geometry, as a DICOM SEG beside the series of ``source``, or as a table."""
        from medssl.commands.export import export_steps

        yield Progress(0, 1, "writing")
        yield from export_steps(mask, [path], names, source.path, source.series or None)
        return path

    def enter(self, folder: Path, volume: Volume, source: Source) -> Steps[Entered]:
        """Enter a scan into a project, or find what is kept about it."""
        yield Progress(0, 2, "recognising the scan")
        project = Project.open_or_create(folder)
        self._workspace.use_project(project)
        entry = project.add_volume(volume, source.path, source.series)
        if not project.classes:
            for name, colour in FIRST_CLASSES:
                project.add_class(name, colour)
        yield Progress(1, 2, "restoring labels")
        store = LabelStore(project, entry.id)
        proposal = store.proposal(PROPOSAL)[0] if PROPOSAL in store.proposals() else None
        path = project.path_of(entry.id)
        return Entered(store, project.classes, store.restore(), store.voxels_per_class(), path, proposal)

    def keep(self, volume: Volume, path: Path) -> Steps[Path]:
        """Write a scan that came without a file to its place in the project, for later training."""
        yield Progress(0, 1, "writing")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(volume, path)
        return path

    def prototypes(self, volume: Volume, count: int) -> Steps[Clusters]:
        """The prototype map of a scan with ``count`` clusters."""
        from medssl.commands.prototypes import prototype_steps

        found = yield from prototype_steps(volume, self.encoder, self._workspace, k=count)
        return Clusters(found.labels, found.counts, found.source)

    def search(
        self, volume: Volume, voxel: tuple[int, ...], top: int, where: Path | Volume | None = None
    ) -> Steps[tuple[Hit, ...]]:
        """Places like a voxel: in the index of a folder, in another scan, or in the scan itself."""
        from medssl.commands.search import search_steps

        if isinstance(where, Path):
            vectors = self._workspace.index(where)
        else:
            encoder = self._workspace.encoder(self.encoder, volume.spatial_dims)
            vectors = yield from self._workspace.volume_index_steps(where or volume, encoder)
        found = yield from search_steps(
            vectors, volume, self._workspace, at=voxel, encoder=self.encoder, top=top
        )
        paths = {name: str(entry.get("path", "")) for name, entry in vectors.volumes.items()}
        return tuple(Hit(h.volume, h.voxel, h.mm, h.score, paths[h.volume]) for h in found.hits)

    def open_index(self, folder: Path) -> Steps[str]:
        """Load an index; what it holds, in words."""
        yield Progress(0, 1, "reading the index")
        index = self._workspace.index(folder)
        return f"{folder.name}: {len(index.volumes)} scans, {len(index):,} places"

    def build_index(self, scans: Path, index: Path) -> Steps[Path]:
        """Embed all scans of a folder into an index."""
        from medssl.commands import embed
        from medssl.config.embed import EmbedConfig

        config = EmbedConfig(encoder=self.encoder, data=scans, out=index, device=self.device)
        yield from embed.run(config, self._workspace)
        return index

    def probe(self, volume: Volume, scribbles: Volume, keep: Callable[[Volume], None]) -> Steps[Volume]:
        """Segment a scan from its scribbles; ``keep`` is called with the result before it is returned."""
        from medssl.commands.probe import probe_steps

        found = yield from probe_steps([(volume, scribbles.array[0])], self.encoder, self._workspace)
        proposal = volume.with_array(found.prediction.labels, modality="", notes=())
        keep(proposal)
        return proposal

    def predict(self, volume: Volume, model: Path) -> Steps[Volume]:
        """Segment a scan with the weights of a run."""
        from medssl.commands.predict import segment
        from medssl.store.weights import resolve

        yield Progress(0, None, "loading the network")
        return (yield from segment(volume, resolve(str(model)), self._workspace))

    def order_training(
        self, folder: Path, settings: Mapping[str, Any], dims: int = 3
    ) -> Steps[TrainingOrder]:
        """Write the labelled scans of a project as a training table and name the command line."""
        return (yield from order_training(folder, self.encoder, self.device, settings, dims))

    def trained(self, run: Path) -> str:
        """The verdict of a run that left usable weights; empty where it left none."""
        if not (run / "exported" / "model.safetensors").is_file():
            return ""
        try:
            result = json.loads((run / "result.json").read_text(encoding="utf-8"))
            return str(result["message"])
        except (OSError, ValueError, KeyError):
            return "Training ended."


def _series_text(entry: SeriesInfo) -> str:
    size = " x ".join(map(str, entry.shape))
    words = [entry.modality, size, entry.description or "no description"]
    return "  ".join(word for word in words if word)
