"""Foreign checkpoint files: read without running code, their tensors found wherever they lie."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medssl.errors import InputError

_CONTAINERS = ("state_dict", "network_weights", "model_state_dict", "module", "model")

_ADVICE = ("Weights only load failed", "(1)", "(2)", "Please", "Check the documentation")
"""How the lines begin in which torch tells how to read a file in spite of all."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by key, those of the network where it also holds an optimiser.

    Args:
        path: what ``torch.save`` wrote, or a safetensors file.

    Raises:
        InputError: the file is absent, damaged, or holds anything that could run code when read.
    """
    try:
        if path.suffix == ".safetensors":
            values: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of pickle protocols; what matters is raised
                values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds more than tensors and plain values, or is no checkpoint ({_first_line(error)}); "
            "it is not read because that can run code: save its state dict alone where you trust it"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as a checkpoint ({_first_line(error)})") from error
    state = _state(values)
    if not state:
        raise InputError(
            f"{path}: holds no tensors by name; give the checkpoint with the network's state dict"
        )
    return state


def strip_prefix(
    state: Mapping[str, Tensor], anchor: str, preferred: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The tensors of one network by its own names: what stands before ``anchor`` is taken off.

    Args:
        state: all tensors.
        anchor: how a key of the network begins.
        preferred: words in a prefix that decide where the file holds several such networks, best first;
            otherwise the shortest prefix wins.

    Returns:
        Keys of the network; empty where no key contains ``anchor``.
    """
    prefixes = {key[: key.index(anchor)] for key in state if _holds(key, anchor)}
    if not prefixes:
        return {}

    def rank(prefix: str) -> tuple[int, int]:
        place = next((i for i, word in enumerate(preferred) if word in prefix), len(preferred))
        return place, len(prefix)

    prefix = min(prefixes, key=rank)
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _holds(key: str, anchor: str) -> bool:
    place = key.find(anchor)
    return place == 0 or (place > 0 and key[place - 1] == ".")


def _state(values: Any) -> dict[str, Tensor]:
    while isinstance(values, Mapping):
        inner = next((values[name] for name in _CONTAINERS if isinstance(values.get(name), Mapping)), None)
        if inner is None:
            return {str(key): value for key, value in values.items() if isinstance(value, Tensor)}
        values = inner
    return {}


def _first_line(error: Exception) -> str:
    """Why, in a line; a KeyError is the unpickler's, of a byte that it does not know."""
    if isinstance(error, KeyError):
        return "not what torch.save writes"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(_ADVICE)] or lines or [type(error).__name__]
    reason = reasons[0].removeprefix("WeightsUnpickler error: ").split(". ")[0]
    return "".join(sign for sign in reason if sign.isprintable())[:120].rstrip(".")
