"""Weights files that `medssl predict` understands: a network, or a probe beside its encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.commands.finetune.cohort import Cohort
from medssl.store.weights import inherited
from medssl.volume.working_grid import SPACING_RANGE

if TYPE_CHECKING:
    from torch import nn

    from medssl.inference.load import LoadedEncoder
    from medssl.probing.linear import LinearProbe
    from medssl.tasks.segmentation import SegmentationTask


def class_names(cohort: Cohort) -> list[dict[str, Any]]:
    """Mask value and name of each class, for the header of the weights."""
    default = {0: "background"} if cohort.background == 0 else {}
    names = {**default, **cohort.config.classes}
    return [{"value": value, "name": names.get(value, f"class {value}")} for value in cohort.values]


def export_network(path: Path, cohort: Cohort, task: SegmentationTask, loaded: LoadedEncoder | None) -> None:
    """Write backbone and classifier; features keep the projection of the weights it started from."""
    from medssl.training.export import export_weights

    network = task.network
    low, high = SPACING_RANGE if loaded is None else loaded.spacing_range
    metadata = {
        "method": "finetune",
        "encoder": {"name": "finetuned", **network.encoder.config},
        "preprocessing": {"spacing_range": [low, high]},
        "modalities": list(cohort.modalities),
        "init": cohort.config.init,
        "note": cohort.config.note,
        **({} if loaded is None else inherited(loaded.metadata)),
        "task": {
            "name": "segmentation",
            "kind": "network",
            "classes": class_names(cohort),
            "network": dict(network.config),
        },
    }
    dense = loaded.features if loaded and loaded.has_projection else None
    modules: dict[str, nn.Module] = {"segmentation": network.segmentation}
    if network.linear is not None:
        modules["linear"] = network.linear
    export_weights(path, network.backbone, metadata, dense=dense, modules=modules)


def export_probe(path: Path, cohort: Cohort, probe: LinearProbe, loaded: LoadedEncoder) -> None:
    """Write the probe beside the weights it was fitted on."""
    from safetensors.numpy import load_file

    from medssl.store.weights import resolve, write_weights

    record = resolve(cohort.config.init)
    task = {"name": "segmentation", "kind": "probe", "classes": class_names(cohort)}
    tensors = {k: v for k, v in load_file(record.path).items() if not k.startswith("probe.")}
    tensors |= {f"probe.{name}": values for name, values in probe.to_arrays().items()}
    own = {
        "init": cohort.config.init,
        "note": cohort.config.note,
        "modalities": list(cohort.modalities),
        "task": task,
    }
    write_weights(path, tensors, {**loaded.metadata, **own})
