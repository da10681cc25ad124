"""What the controllers ask of `medssl`: every wish is a generator, every answer a value."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.io import list_series, read_volume, write_volume
from medssl.jobs.progress import Progress, Steps
from medssl.store.labels import LabelStore
from medssl.store.project import LabelClass, Project
from medssl.volume import Volume
from napari_medssl.session import Hit, Source

logger = logging.getLogger(__name__)

FIRST_CLASSES = ("background", "target")
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
    """What the project keeps about a scan."""

    store: LabelStore
    classes: tuple[LabelClass, ...]
    scribbles: NDArray[np.uint8]
    proposal: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Clusters:
    """A prototype map on the scan's own voxels, and the voxels of each number (0: outside the body)."""

    volume: Volume
    counts: Mapping[int, int]


@dataclass(frozen=True)
class TrainingOrder:
    """A run that is ready to start: the command line after ``medssl``, and the run folder."""

    arguments: Sequence[str]
    run: Path


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

    def open(self, path: Path, series: str = "") -> Steps[Opened]:
        """Read a file or folder; of several series the named or the largest one."""
        yield Progress(0, 2, "looking for series")
        found = list_series(path)
        readable = [entry for entry in found if not entry.reason]
        chosen = series or (readable[0].uid if readable else "")
        yield Progress(1, 2, "reading")
        volume = read_volume(path, chosen or None)
        texts = tuple((entry.uid, _series_text(entry)) for entry in readable)
        yield Progress(2, 2, "reading")
        return Opened(volume, path, texts, chosen)

    def write(self, volume: Volume, path: Path) -> Steps[Path]:
        """Write a mask or an image in its own geometry."""
        yield Progress(0, 1, "writing")
        write_volume(volume, path)
        return path

    def enter(self, folder: Path, volume: Volume, source: Source) -> Steps[Entered]:
        """Enter a scan into a project, or find what is kept about it."""
        yield Progress(0, 2, "recognising the scan")
        project = Project.open_or_create(folder)
        entry = project.add_volume(volume, source.path or source.layer or volume.id, source.series)
        if not project.classes:
            for name in FIRST_CLASSES:
                project.add_class(name)
        yield Progress(1, 2, "restoring labels")
        store = LabelStore(project, entry.id)
        proposal = store.proposal(PROPOSAL)[0] if PROPOSAL in store.proposals() else None
        return Entered(store, project.classes, store.restore(), proposal)


def _series_text(entry: Any) -> str:
    size = " x ".join(map(str, entry.shape))
    words = [entry.modality, entry.description or "no description", size]
    return "  ".join(word for word in words if word)


FIRST_SETTINGS = ("steps",)
MORE_SETTINGS = ("lr", "batch_size")


def training_defaults() -> Any:
    """The settings that the Train panel opens with."""
    from medssl.config.training import TrainingConfig

    return TrainingConfig()
