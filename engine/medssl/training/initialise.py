"""Start from weights that exist."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import nn

from medssl.errors import InputError
from medssl.store.weights import resolve


def initialise(backbone: nn.Module, weights: str) -> str:
    """Copy every tensor of ``weights`` whose name and shape fit, and say what happened.

    Args:
        backbone: changed in place.
        weights: registry name, run folder or file.

    Returns:
        One line: how many matched, which were missing or of another shape.

    Raises:
        InputError: no convolution or linear weight matched.
    """
    record = resolve(weights)
    state = backbone.state_dict()
    given = {
        key.removeprefix("backbone."): value
        for key, value in load_file(record.path).items()
        if key.startswith("backbone.")
    }
    wanted = [key for key in state if not key.endswith("num_batches_tracked")]
    matched = [key for key in wanted if key in given and given[key].shape == state[key].shape]
    reshaped = [key for key in wanted if key in given and given[key].shape != state[key].shape]
    if not any(state[key].ndim > 1 for key in matched):  # biases alone fit by accident: 2D into 3D
        raise InputError(
            f"--init {weights}: none of its weights fits this model (it holds {record.metadata['encoder']}); "
            "choose the same --encoder and --dims"
        )
    with torch.no_grad():
        for key in matched:
            state[key].copy_(given[key])
    missing = len(wanted) - len(matched) - len(reshaped)
    return (
        f"{weights}: {len(matched)} of {len(wanted)} tensors matched, {missing} missing, "
        f"{len(reshaped)} of another shape{' (' + reshaped[0] + ')' if reshaped else ''}"
    )
