"""Scalars for TensorBoard, beside the events of the run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from medssl.errors import InputError

Log = Callable[[int, Mapping[str, float]], None]


@contextmanager
def tensorboard(folder: Path | None, step: int = 0) -> Iterator[Log]:
    """A function that logs the metrics of a step.

    Args:
        folder: of the event files; None logs nothing.
        step: finished steps; what an earlier, killed process logged after them is hidden.

    Raises:
        InputError: TensorBoard is not installed.
    """
    if folder is None:
        yield lambda step, metrics: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  an option, and slow to import
    except ImportError as error:
        raise InputError(
            f"training.tensorboard: TensorBoard cannot be loaded ({error}); pip install tensorboard, or "
            "leave the option out: events.jsonl holds the same numbers"
        ) from error
    writer = SummaryWriter(str(folder), purge_step=step + 1)

    def log(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    try:
        yield log
    finally:
        writer.close()
