"""Segmentation goes on with the decoder of a pre-training that had one."""

from __future__ import annotations

from safetensors.torch import load_file
from torch import nn

from medssl.errors import InputError
from medssl.store.weights import resolve

_PREFIX = "backbone.decoder."


def take_decoder(decoder: nn.Module, weights: str) -> int:
    """Copy the decoder of weights.

    Args:
        decoder: made by `medssl.nets.decoder.restore_decoder` from the header's "decoder", changed in place.
        weights: registry name, run folder or file.

    Returns:
        How many tensors were copied: all of them.

    Raises:
        InputError: the tensors do not fit.
    """
    record = resolve(weights)
    state = {
        key.removeprefix(_PREFIX): value
        for key, value in load_file(record.path).items()
        if key.startswith(_PREFIX)
    }
    try:
        decoder.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--init {weights}: its decoder does not fit ({reason}); "
            "set segmentation.pretrained_decoder to false"
        ) from error
    return len(state)
