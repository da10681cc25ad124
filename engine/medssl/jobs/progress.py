"""What long work says while it runs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """One sign of life of a running command.

    Args:
        step: finished steps of this phase.
        total: steps of this phase, None where unknown.
        phase: what is being done, in words for the user ("embedding", "training").
        metrics: numbers worth plotting (loss, Dice), by name.
        message: a sentence for the user, empty where there is none.
        notice: whether the message is one that must stay to be read (what was left out, what matched),
            not one that the next may replace.
    """

    step: int
    total: int | None
    phase: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    notice: bool = False


Steps = Generator[Progress, None, T]
"""Long work: yields `Progress`, may be closed at any yield, returns its result."""


def drain(steps: Steps[T], report: Callable[[Progress], None] | None = None) -> T:
    """Run a command to its end, here and now, and return its result.

    Args:
        steps: the generator of a command.
        report: called with every `Progress`.
    """
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        if report is not None:
            report(progress)
