"""What the demo works on: a scan, what is known about it, and a place worth looking for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medssl.io import read_volume, samples
from medssl.retrieval.search import centre_of
from medssl.volume import Volume

if TYPE_CHECKING:
    from medssl.commands.workspace import Workspace

TISSUES = ("background", "fluid", "grey matter", "white matter")
PUTAMEN_MM = (2.0, -4.0, 26.0)
"""Left putamen of the MNI152 template, LPS mm as (z, y, x): a structure with a twin on the right."""

SURE = 0.8
"""Tissue probability from which a voxel is taken for a scribble."""

REGIONS = 3


@dataclass(frozen=True, eq=False)
class Case:
    """A scan of the demo.

    Args:
        volume: the scan.
        path: where it came from.
        names: class of each label value from 1.
        sure: (*S) label value where a scribble may go, 0 elsewhere.
        truth: (*S) label value of every voxel where it is known, else None.
        seed: voxel to search from.
    """

    volume: Volume
    path: Path
    names: tuple[str, ...]
    sure: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None
    seed: tuple[int, ...]


def sample_case(workspace: Workspace) -> Case:
    """The MNI152 average brain with the tissue probabilities that come with it."""
    path = samples.brain_template()
    volume = workspace.volume(path)
    grey, white = (
        read_volume(samples.tissue_map(tissue)).array[0].astype(np.float32) / 255
        for tissue in ("grey matter", "white matter")
    )
    inside = volume.array[0] > 0
    shares = np.stack([~inside, inside - np.minimum(grey + white, inside), grey, white])
    truth = (shares.argmax(0) + 1).astype(np.uint8)
    sure = np.where(shares.max(0) >= SURE, truth, 0).astype(np.uint8)
    seed = np.rint(volume.geometry.to_index(PUTAMEN_MM)).astype(int)
    return Case(volume, path, TISSUES, sure, truth, tuple(int(i) for i in seed))


def own_case(volume: Volume, path: Path, regions: NDArray[np.uint8]) -> Case:
    """A scan of the user: nothing is known about it, so prototypes stand for classes.

    Args:
        volume: the scan.
        path: where it came from.
        regions: (*S) prototype map of few prototypes, 0 is air.
    """
    present = np.unique(regions)
    values = np.zeros(int(present.max()) + 1, np.uint8)
    values[present] = np.arange(1, len(present) + 1)
    labels = values[regions]
    names = tuple("air" if value == 0 else f"prototype {value}" for value in present)
    sizes = np.bincount(regions.ravel())[1:]
    largest = regions == int(sizes.argmax()) + 1
    return Case(volume, path, names, labels, None, centre_of(largest))
