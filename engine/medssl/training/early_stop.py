"""Judging a model while it trains: keep the best weights, stop when they get no better."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn

from medssl.store.atomic import atomic_file, write_atomically


class EarlyStop:
    """The ``after_step`` of the training loop.

    Scores and best weights are in the run folder at once, so a resumed run knows them.

    Args:
        folder: run folder; gets ``scores.json`` and ``checkpoints/best.safetensors``.
        module: whose weights are kept.
        score: judges the module as it is, and leaves it in the mode it was in; higher is better.
        every: steps between two judgements.
        patience: judgements without a better score before training stops; none while nothing was found (0).
        begin: finished steps before which judgements do not count against it (a frozen encoder).
    """

    def __init__(
        self,
        folder: Path,
        module: nn.Module,
        score: Callable[[], float],
        *,
        every: int,
        patience: int,
        begin: int = 0,
    ) -> None:
        self._scores = folder / "scores.json"
        self._best = folder / "checkpoints" / "best.safetensors"
        self._module = module
        self._score = score
        self._every = every
        self._patience = patience
        self._begin = begin
        self.history: dict[int, float] = {}
        if self._scores.exists() and self._best.exists():
            self.history = {int(k): v for k, v in json.loads(self._scores.read_text("utf-8")).items()}

    @property
    def best_step(self) -> int:
        """Finished steps of the best weights, 0 before the first judgement."""
        if not any(self.history.values()):
            return max(self.history, default=0)  # nothing found yet: what learned longest
        return max(self.history, key=lambda step: (self.history[step], -step))

    def __call__(self, step: int) -> bool:
        """Judge where it is time, and say whether to stop.

        Args:
            step: finished steps.
        """
        if step % self._every == 0:
            self.judge(step)
        looks = sorted(done for done in self.history if done <= step)
        return sum(done > max(self.best_step, self._begin) for done in looks) >= self._patience

    def judge(self, step: int) -> float:
        """Score the weights after ``step`` steps and keep them if they are the best."""
        # a resumed run repeats what came after its checkpoint; what it had found there is found again
        self.history = {done: value for done, value in self.history.items() if done < step}
        with torch.no_grad():
            value = self._score()
        best = max(self.history.values(), default=-math.inf)
        self.history[step] = value if math.isfinite(value) else 0.0
        if self.history[step] > best or not any(self.history.values()):
            with atomic_file(self._best) as file:
                file.write(
                    save({k: v.detach().cpu().contiguous() for k, v in self._module.state_dict().items()})
                )
        write_atomically(self._scores, json.dumps(self.history))
        return value

    def restore_best(self) -> int:
        """Put the best weights back; their step. Nothing happens before the first judgement."""
        if self.history:
            self._module.load_state_dict(load_file(self._best))
        return self.best_step
