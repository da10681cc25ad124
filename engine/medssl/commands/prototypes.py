"""Scan -> prototype map on its own voxels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medssl.commands.workspace import Workspace
from medssl.config.prototypes import PrototypesConfig
from medssl.errors import InputError
from medssl.io import write_volume
from medssl.io.outputs import check_dimensions, check_output
from medssl.jobs.progress import Progress, Steps
from medssl.retrieval.prototypes import assign_cells, cluster_centres, label_map, merge_prototypes
from medssl.volume import Volume
from medssl.volume.resample import resample_nearest

DOMINANT = 0.5
"""Share of a scan that one learned prototype may have: a larger one cannot be split by merging less."""


@dataclass(frozen=True, eq=False)
class PrototypeMap:
    """Prototypes of a scan.

    Args:
        labels: (1, *S) uint8 or uint16 on the scan's grid; 0 is air, 1 .. K are prototypes.
        cells: the same per cell.
        counts: voxels by label.
        source: "learned" or "k-means".
        path: where it was written, None where it was not.
        notes: what was chosen, inferred or repaired on reading the scan.
    """

    labels: Volume
    cells: Volume
    counts: Mapping[int, int]
    source: str
    path: Path | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "labels": None if self.path is None else str(self.path),
            "source": self.source,
            "k": sum(1 for label in self.counts if label > 0),
            "voxels": {str(label): count for label, count in self.counts.items()},
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """For the terminal."""
        k = sum(1 for label in self.counts if label > 0)
        notes = (f"note: {note}" for note in self.notes)
        return "\n".join([f"{self.path}: {k} prototypes ({self.source})", *notes])


def run(config: PrototypesConfig, workspace: Workspace | None = None) -> Steps[PrototypeMap]:
    """Write the prototype map of a scan.

    Args:
        config: weights, scan, file to write, K.
        workspace: keeps scan, weights and features.
    """
    check_output(config.out, config.input)
    workspace = workspace or Workspace(config.device)
    volume = yield from workspace.scan_steps(config.input, config.series, config.frame)
    check_dimensions(config.out, volume)
    found = yield from prototype_steps(
        volume, config.encoder, workspace, k=config.k, source=config.source, seed=config.seed
    )
    config.out.parent.mkdir(parents=True, exist_ok=True)
    yield Progress(0, 1, "writing")
    write_volume(found.labels, config.out)
    return replace(found, path=config.out, notes=volume.notes)


def prototype_steps(
    volume: Volume,
    encoder: str,
    workspace: Workspace,
    *,
    k: int,
    source: Literal["auto", "learned", "k-means"] = "auto",
    seed: int = 0,
) -> Steps[PrototypeMap]:
    """The prototype map of a scan in memory.

    Learned prototypes that occur in the scan are merged until ``k`` are left. Where more are wanted
    than occur, where one of them covers most of the scan, or where the weights have none, the scan's own
    features are clustered by their direction from the scan's mean. Only learned prototypes have the same
    meaning in every scan.

    Args:
        volume: the scan.
        encoder: weights by name.
        workspace: gives weights and features; warm features make this instantaneous.
        k: prototypes wanted.
        source: which prototypes; "auto" takes learned ones where they suffice.
        seed: of the clusters.

    Raises:
        InputError: learned prototypes are asked for and the weights have none.
    """
    loaded = workspace.encoder(encoder, volume.spatial_dims)
    found = yield from workspace.features_steps(volume, loaded)
    mask = workspace.foreground(volume, found.features.geometry)
    learned = None if loaded.prototypes is None else loaded.prototypes.weight.detach().cpu().numpy()
    if source == "learned" and (learned is None or found.prototypes is None):
        raise InputError(f"the weights {encoder!r} have no learned prototypes; use --source k-means")
    yield Progress(0, 1, "grouping prototypes")
    group, used = None, "k-means"
    if source != "k-means" and learned is not None and found.prototypes is not None:
        assigned = np.asarray(found.prototypes.array[0]).astype(np.int64)
        counts = np.bincount(assigned[mask], minlength=len(learned))
        is_telling = k <= np.count_nonzero(counts) and counts.max() <= DOMINANT * counts.sum()
        if source == "learned" or is_telling:
            group, used = merge_prototypes(learned, k, counts), "learned"
    if group is None:
        vectors = found.features.array[:, mask].T.astype(np.float32)
        mean = vectors.mean(axis=0)
        vectors -= mean  # what all cells of a scan share would hide what they differ in
        centres = cluster_centres(vectors, k, seed)
        assigned, group = assign_cells(found.features.array, centres, mean), np.arange(len(centres))
    labels = label_map(assigned, group, mask)
    if labels.max() < 256:
        labels = labels.astype(np.uint8)
    cells = found.features.with_array(labels)
    native = volume.with_array(resample_nearest(cells.array, cells.geometry, volume.geometry))
    numbers, sizes = np.unique(native.array, return_counts=True)
    counts_by_label = {int(n): int(c) for n, c in zip(numbers, sizes, strict=True)}
    return PrototypeMap(native, cells, counts_by_label, used)
