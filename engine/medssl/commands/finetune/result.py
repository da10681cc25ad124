"""What `medssl finetune` reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FinetuneResult:
    """How a fine-tuning ended.

    Args:
        run: run folder.
        use: "network" or "probe": what was exported, because it is better on the held-out labels; "" after
            a signal, when only the checkpoint was saved.
        message: the comparison in a sentence.
        held_out: what the models were judged on.
        scores: figures as plain values by model.
        step: finished steps.
        best_step: step of the weights that were kept.
        stopped: "" when all steps are done, else "early", "stop" or "signal".
        seconds: time of the whole command.
        weights: exported file.
    """

    run: Path
    use: str
    message: str
    held_out: str
    scores: Mapping[str, Any]
    step: int
    best_step: int
    stopped: str
    seconds: float
    weights: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "run": str(self.run),
            "use": self.use,
            "message": self.message,
            "held_out": self.held_out,
            "scores": dict(self.scores),
            "step": self.step,
            "best_step": self.best_step,
            "stopped": self.stopped,
            "seconds": round(self.seconds, 1),
            "weights": None if self.weights is None else str(self.weights),
        }

    def to_text(self) -> str:
        """For the terminal."""
        if self.weights is None:
            return f"stopped after step {self.step}; go on with --resume {self.run}"
        return f"{self.message}\nheld out: {self.held_out}\nweights: {self.weights} ({self.use})"
