"""Segment a scan with a fine-tuned model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medssl.commands.workspace import Workspace
from medssl.config.predict import PredictConfig
from medssl.errors import InputError
from medssl.io import write_volume
from medssl.jobs.progress import Progress, Steps
from medssl.store.weights import WeightsRecord, resolve
from medssl.volume import Volume


@dataclass(frozen=True)
class PredictResult:
    """A segmentation on disk.

    Args:
        path: the mask.
        kind: "network" or "probe": what the model is.
        voxels: voxels per class name.
        seconds: time from the loaded scan to the written mask.
    """

    path: Path
    kind: str
    voxels: Mapping[str, int]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "path": str(self.path), "voxels": dict(self.voxels)}

    def to_text(self) -> str:
        """For the terminal."""
        counts = ", ".join(f"{name}: {count} voxels" for name, count in self.voxels.items())
        return f"{self.path} ({self.kind}, {self.seconds:.1f} s): {counts}"


def run(config: PredictConfig, workspace: Workspace | None = None) -> Steps[PredictResult]:
    """Segment one scan and write the mask in its geometry.

    Args:
        config: model, scan and where to write.
        workspace: keeps scans, encoders and features warm.
    """
    warm = workspace or Workspace(config.device)
    record = resolve(config.model)
    yield Progress(0, None, "reading", message=f"reading {config.input}")
    volume = warm.volume(config.input, config.series)
    begin = time.perf_counter()
    mask = yield from segment(volume, record, warm, overlap=config.overlap, window=config.window)
    write_volume(mask, config.out)
    classes = record.metadata["task"]["classes"]
    voxels = {str(c["name"]): int(np.count_nonzero(mask.array == c["value"])) for c in classes}
    kind = str(record.metadata["task"]["kind"])
    return PredictResult(config.out, kind, voxels, time.perf_counter() - begin)


def segment(
    volume: Volume,
    record: WeightsRecord,
    workspace: Workspace,
    *,
    overlap: float = 0.25,
    window: int | None = None,
) -> Steps[Volume]:
    """The mask (1, *S) of a volume, by network or probe as the weights say.

    Raises:
        InputError: weights without a segmentation task, or of other dimensions.
    """
    from safetensors.numpy import load_file

    from medssl.inference.segment import load_segmenter, segment_steps, task_of
    from medssl.probing.linear import LinearProbe
    from medssl.probing.samples import Scan

    task = task_of(record)
    if task.get("name") != "segmentation":
        raise InputError(f"{record.name}: made for {task.get('name')}; medssl predict segments")
    if task["kind"] == "network":
        segmenter = load_segmenter(record, workspace.device)
        return (yield from segment_steps(volume, segmenter, overlap=overlap, window=window))
    encoder = workspace.encoder(str(record.path))
    embedding = yield from workspace.features_steps(volume, encoder)
    tensors = load_file(record.path)
    probe = LinearProbe.from_arrays(
        {key.removeprefix("probe."): value for key, value in tensors.items() if key.startswith("probe.")}
    )
    labels = probe.predict(Scan(volume, embedding.features)).labels
    return volume.with_array(labels, modality="", notes=())
