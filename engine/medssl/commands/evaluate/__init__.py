"""`medssl evaluate`: what frozen features are worth where labels are few."""

from medssl.commands.evaluate.command import EvaluateResult, run

__all__ = ["EvaluateResult", "run"]
