"""Everything a run needs to go on as if it had never stopped, in one file that is whole or absent."""

from __future__ import annotations

import errno
import io
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from medssl.errors import InputError
from medssl.store.atomic import atomic_file
from medssl.store.runs import Run

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)

FORMAT = "medssl-checkpoint-1"


def save_checkpoint(
    run: Run, step: int, module: nn.Module, optimizer: Optimizer, extra: Mapping[str, Any] | None = None
) -> Path:
    """Write the checkpoint after ``step`` finished steps.

    Args:
        run: run folder.
        step: finished optimiser steps.
        module: trainable with all its parameters and buffers (queues, running statistics).
        optimizer: its moments.
        extra: plain values to keep beside (best metric, gradient scaler).

    Raises:
        InputError: the file cannot be written (disk full); earlier checkpoints are untouched.
    """
    values = {
        "format": FORMAT,
        "step": step,
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        },
        "extra": dict(extra or {}),
    }
    path = run.checkpoint(step)
    buffer = io.BytesIO()  # straight into a file, torch turns a full disk into an obscure RuntimeError
    torch.save(values, buffer)
    try:
        with atomic_file(path) as stream:
            stream.write(buffer.getbuffer())
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror or error)
        raise InputError(
            f"{path}: cannot be written, {reason}; earlier checkpoints are whole: mend it and continue with "
            f"--resume {run.folder}"
        ) from error
    return path


def load_checkpoint(run: Run) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; None where there is none.

    Raises:
        InputError: there are checkpoints, none of them readable.
    """
    paths = run.checkpoints()
    for path in reversed(paths):
        try:
            values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            logger.warning("%s cannot be read (%s); trying the one before", path, error)
            continue
        if values.get("format") == FORMAT:
            return values
    if paths:
        raise InputError(f"{run.folder}: none of its checkpoints can be read; start a new run")
    return None


def restore(values: Mapping[str, Any], module: nn.Module, optimizer: Optimizer) -> int:
    """Put a loaded checkpoint back and return the number of finished steps.

    Raises:
        InputError: it belongs to another model.
    """
    try:
        module.load_state_dict(values["model"])
        optimizer.load_state_dict(values["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the checkpoint does not fit the model: {' '.join(str(error).split())[:300]}"
        ) from error
    torch.set_rng_state(values["rng"]["cpu"])
    # Each process draws on one GPU, and all alike: the state of the first is that of every one.
    if torch.is_tensor(state := values["rng"]["cuda"]) and torch.cuda.is_available():
        torch.cuda.set_rng_state(state)
    return int(values["step"])


class Keeper:
    """Saves on the first process, never the same step twice, and keeps the newest few.

    Args:
        fabric: tells which process this is.
        run: run folder; None saves nothing.
        trainable: what is saved.
        optimizer: its optimiser.
        keep: checkpoints kept.
    """

    def __init__(
        self, fabric: Fabric, run: Run | None, trainable: nn.Module, optimizer: Optimizer, keep: int
    ) -> None:
        self._fabric = fabric
        self._run = run
        self._trainable = trainable
        self._optimizer = optimizer
        self._keep = keep
        self._saved = 0

    def resume(self) -> int:
        """Finished steps of the newest checkpoint, put back in place; 0 without one."""
        if self._run is None:
            return 0
        checkpoint = load_checkpoint(self._run)
        if checkpoint is not None:
            self._saved = restore(checkpoint, self._trainable, self._optimizer)
            if scaler := checkpoint["extra"].get("precision"):
                self._fabric.strategy.precision.load_state_dict(scaler)
        return self._saved

    def save(self, step: int) -> None:
        """Write the checkpoint after ``step`` finished steps.

        Raises:
            InputError: a weight is no finite number; the checkpoint before stays.
        """
        if self._run is None or step == self._saved:
            return
        if not all(bool(p.isfinite().all()) for p in self._trainable.parameters()):
            raise InputError(
                f"{self._run.folder}: after step {step} weights are no finite numbers; "
                f"{self._run.last_good()}. Lower training.lr, or bound gradients with training.clip"
            )
        if self._fabric.is_global_zero:
            extra = {"precision": self._fabric.strategy.precision.state_dict()}  # the scale of 16-mixed
            save_checkpoint(self._run, step, self._trainable, self._optimizer, extra)
            self._run.prune(self._keep)
        self._saved = step
