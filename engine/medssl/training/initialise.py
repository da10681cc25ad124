"""Start from weights that exist."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import nn

from medssl.errors import InputError
from medssl.nets.transfer import fit_channels, is_first_kernel
from medssl.store.weights import resolve


def initialise(backbone: nn.Module, weights: str) -> str:
    """Copy every tensor of ``weights`` whose name and shape fit, and say what happened.

    A first convolution for another number of image channels is fitted: averaged over its channels and shared
    out among the new ones, so that equal channels give the same sum.

    Args:
        backbone: changed in place.
        weights: registry name, run folder or file.

    Returns:
        One line: how many matched, were missing, were reshaped, or are of another shape and stay as they
        were.

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
    reshaped = [key for key in wanted if key in given and is_first_kernel(given[key], state[key])]
    given |= {key: fit_channels(given[key], state[key].shape[1]) for key in reshaped}
    matched = [key for key in wanted if key in given and given[key].shape == state[key].shape]
    other = [key for key in wanted if key in given and given[key].shape != state[key].shape]
    missing = [key for key in wanted if key not in given]
    if not any(state[key].ndim > 1 for key in matched):  # biases alone fit by accident: 2D into 3D
        raise InputError(
            f"--init {weights}: none of its weights fits this model (it holds {record.metadata['encoder']}); "
            "choose the same --encoder and --dims"
        )
    with torch.no_grad():
        for key in matched:
            state[key].copy_(given[key])
    return (
        f"{weights}: {len(matched)} of {len(wanted)} tensors matched, "
        f"{len(missing)} missing{_first(missing)}, {len(reshaped)} reshaped{_first(reshaped)}, "
        f"{len(other)} of another shape{_first(other)}"
    )


def describe_start(network: nn.Module, weights: str) -> str:
    """What a network that is about to be fine-tuned has of ``weights``, and what of it is new.

    Args:
        network: encoder, maybe a decoder, and the layers of a task; a tensor counts where name, shape and
            values are those of the file.
        weights: registry name, run folder or file.

    Returns:
        One line: matched and missing tensors by part, those of another shape, new parts, and what of the file
        is not used.
    """
    given = load_file(resolve(weights).path)
    state = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
    parts: dict[str, list[str]] = {}
    for key in state:
        parts.setdefault(_part(key), []).append(key)
    same = {key for key, value in state.items() if key in given and torch.equal(given[key], value.cpu())}
    other = [key for key in state if key in given and given[key].shape != state[key].shape]
    taken, new = [], []
    for part, keys in parts.items():
        matched = sum(key in same for key in keys)
        if matched:
            taken.append(f"{part} {matched} of {len(keys)} tensors matched, {len(keys) - matched} missing")
        else:
            new.append(f"{part} ({len(keys)} tensors)")
    idle = sorted({_part(key) for key in given} - {_part(key) for key in same})
    return (
        f"{weights}: {'; '.join(taken) or 'no tensor matched'}; {len(other)} reshaped{_first(other)}; "
        f"new: {', '.join(new) or 'nothing'}" + (f"; not used: {', '.join(idle)}" if idle else "")
    )


def _part(key: str) -> str:
    """The part of a network that a tensor belongs to."""
    return key.removeprefix("backbone.").split(".")[0]


def _first(keys: list[str]) -> str:
    return f" ({keys[0]}{', ...' if len(keys) > 1 else ''})" if keys else ""
