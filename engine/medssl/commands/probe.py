"""Few labelled voxels -> a segmentation of the whole volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.commands.workspace import Workspace
from medssl.config.probe import ProbeConfig
from medssl.data.labelled import whole_numbers
from medssl.errors import InputError
from medssl.io import write_volume
from medssl.io.outputs import check_dimensions, check_output
from medssl.jobs.progress import Progress, Steps
from medssl.probing.linear import LinearProbe, Prediction
from medssl.probing.samples import Scan
from medssl.volume import Volume


@dataclass(frozen=True)
class ProbeResult:
    """What was written.

    Args:
        path: the segmentation.
        labelled: labelled voxels by class.
        voxels: segmented voxels by class.
        notes: what was chosen, inferred or repaired on reading the scan.
    """

    path: Path
    labelled: dict[int, int]
    voxels: dict[int, int]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "segmentation": str(self.path),
            "labelled": {str(name): count for name, count in self.labelled.items()},
            "voxels": {str(name): count for name, count in self.voxels.items()},
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """For the terminal."""
        parts = [f"class {c}: {n} labelled, {self.voxels.get(c, 0)} found" for c, n in self.labelled.items()]
        return "\n".join([f"{self.path}", *parts, *(f"note: {note}" for note in self.notes)])


@dataclass(frozen=True, eq=False)
class ProbeOutcome:
    """A fitted probe and what it says about the first volume."""

    probe: LinearProbe
    prediction: Prediction


def run(config: ProbeConfig, workspace: Workspace | None = None) -> Steps[ProbeResult]:
    """Fit a probe on a scan's labelled voxels and write its segmentation.

    Args:
        config: weights, scan, labels, file to write.
        workspace: keeps scan, weights and features.
    """
    check_output(config.out, config.input, config.labels)
    if config.uncertainty is not None:
        check_output(config.uncertainty, config.input, config.labels, config.out, option="--uncertainty")
    workspace = workspace or Workspace(config.device)
    volume = yield from workspace.scan_steps(config.input, config.series, config.frame)
    check_dimensions(config.out, volume)
    if config.uncertainty is not None:
        check_dimensions(config.uncertainty, volume, "--uncertainty")
    labels = read_labels(config.labels, volume, config.input)
    outcome = yield from probe_steps(
        [(volume, labels)],
        config.encoder,
        workspace,
        probe=LinearProbe(config.inverse_strength),
        with_uncertainty=config.uncertainty is not None,
    )
    yield Progress(0, 1, "writing")
    prediction = outcome.prediction
    for path, array in ((config.out, prediction.labels), (config.uncertainty, prediction.uncertainty)):
        if path is not None and array is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            values = array if array.dtype == np.uint8 else array.astype(np.float32)
            write_volume(volume.with_array(values), path)
    return ProbeResult(config.out, _counts(labels[labels > 0]), _counts(prediction.labels), volume.notes)


def probe_steps(
    labelled: Sequence[tuple[Volume, NDArray[Any]]],
    encoder: str,
    workspace: Workspace,
    *,
    probe: LinearProbe | None = None,
    with_uncertainty: bool = False,
) -> Steps[ProbeOutcome]:
    """Fit a probe on volumes in memory and segment the first.

    Args:
        labelled: volumes with their labels (*S): 0 = unlabelled, 1 .. C = classes.
        encoder: weights by name.
        workspace: gives weights and features; with warm features this takes a second.
        probe: fitted again from its last weights; None makes one.
        with_uncertainty: also 1 - margin of the probabilities.
    """
    loaded = workspace.encoder(encoder, labelled[0][0].spatial_dims)
    scans = []
    for volume, labels in labelled:
        found = yield from workspace.features_steps(volume, loaded)
        scans.append((Scan(volume, found.features), labels))
    yield Progress(0, 2, "fitting the probe")
    probe = (probe or LinearProbe()).fit(scans)
    yield Progress(1, 2, "segmenting")
    prediction = probe.predict(scans[0][0], with_uncertainty=with_uncertainty)
    yield Progress(2, 2, "segmenting")
    return ProbeOutcome(probe, prediction)


def read_labels(path: Path, volume: Volume, source: Path) -> NDArray[np.uint8]:
    """Labels (*S) of a volume from a file on the same grid.

    Raises:
        InputError: another grid, several volumes, or values that are not classes 0 .. 255.
    """
    from medssl.io import read_volume

    labels = read_volume(path)
    if not labels.geometry.matches(volume.geometry, tolerance=1e-2):
        raise InputError(
            f"{path}: lies on another grid ({_shape(labels)}) than {source} ({_shape(volume)}); "
            "label the scan on its own voxels"
        )
    return whole_numbers(labels.array, str(path)).astype(np.uint8)


def _shape(volume: Volume) -> str:
    return " x ".join(str(n) for n in volume.geometry.shape)


def _counts(labels: NDArray[np.uint8]) -> dict[int, int]:
    names, counts = np.unique(labels, return_counts=True)
    return {int(name): int(count) for name, count in zip(names, counts, strict=True)}
