"""From a trained module to the weights file that all other commands read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from medssl.nets.dense import DenseFeatures
from medssl.store.weights import write_weights


def export_weights(
    path: Path,
    backbone: nn.Module,
    metadata: Mapping[str, Any],
    *,
    dense: DenseFeatures | None = None,
    modules: Mapping[str, nn.Module] | None = None,
) -> str:
    """Write ``backbone.*``, ``projection.*`` and the method's modules (``head.*``, ``prototypes.*``).

    Args:
        path: the safetensors file.
        backbone: encoder, and decoder where there is one.
        metadata: method, encoder, preprocessing and whatever describes the weights.
        dense: dense feature with a fitted projection.
        modules: further modules by the name they get in the file.

    Returns:
        SHA-256 of the file.
    """
    tensors: dict[str, NDArray[Any]] = {}
    parts: dict[str, nn.Module] = {"backbone": backbone, **(modules or {})}
    if dense is not None:
        parts["projection"] = dense
    for name, module in parts.items():
        for key, value in module.state_dict().items():
            if value.is_floating_point() or "num_batches" not in key:
                tensors[f"{name}.{key}"] = value.detach().cpu().numpy().astype(np.float32)
    return write_weights(path, tensors, metadata)
