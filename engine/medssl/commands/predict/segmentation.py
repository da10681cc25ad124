"""A class per voxel, by network or probe as the weights say."""

from __future__ import annotations

from medssl.commands.workspace import Workspace
from medssl.errors import InputError
from medssl.jobs.progress import Steps
from medssl.store.weights import WeightsRecord
from medssl.volume import Volume


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
        raise InputError(f"{record.name}: made for {task.get('name')}, not for segmentation")
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
