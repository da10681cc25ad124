"""Metrics between two log lines, and the watch over a loss that is no number any more."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from medssl.errors import InputError
from medssl.jobs.progress import Progress
from medssl.store.runs import Run


class Meter:
    """Means of the metrics since the last log, summed on the device so that no step waits for it.

    Args:
        total: steps of the run.
        run: where to log; None keeps nothing.
        watched: metrics that must stay finite.
    """

    def __init__(self, total: int, run: Run | None, watched: tuple[str, ...] = ("loss",)) -> None:
        self._total = total
        self._run = run
        self._watched = watched
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._since = time.perf_counter()
        self._from = -1
        self.last: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Time since the last log."""
        return time.perf_counter() - self._since

    @property
    def is_sound(self) -> bool:
        """Whether every watched metric since the last log is finite."""
        return all(bool(torch.isfinite(self._sums[name])) for name in self._watched if name in self._sums)

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Count one value of each metric; the first one says that the run has begun."""
        if self._run is not None:
            self._run.begin()
        for name, value in values.items():
            tensor = torch.as_tensor(value).detach().float()
            self._sums[name] = self._sums[name] + tensor if name in self._sums else tensor.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self, step: int, learning_rate: float) -> dict[str, float]:
        """Means since the last call, logged.

        Args:
            step: finished steps.
            learning_rate: logged beside the metrics.

        Raises:
            InputError: a watched metric is not finite.
        """
        means = {name: float(value) / self._counts[name] for name, value in self._sums.items()}
        for name in self._watched:
            if not torch.isfinite(self._sums.get(name, torch.zeros(()))):
                raise InputError(self._complaint(name, means[name], step))
        steps = step - self._from if self._from >= 0 else self._counts.get("loss", 1)
        self.last = {**means, "lr": learning_rate, "seconds_per_step": self.seconds / max(1, steps)}
        self._sums, self._counts = {}, {}
        self._since, self._from = time.perf_counter(), step
        if self._run is not None:
            self._run.log(Progress(step, self._total, "training", self.last))
        return self.last

    def _complaint(self, name: str, value: float, step: int) -> str:
        where = f"{self._run.last_good()}; " if self._run is not None else ""
        way = ", beside --resume" if self._run is not None and self._run.checkpoints() else ""
        return (
            f"training: {name} became {value} at or shortly before step {step}; {where}lower the learning "
            f"rate (training.lr), clip harder (training.clip) or use precision 32-true{way}"
        )
