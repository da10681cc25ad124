"""Train encoder and decoder with labels, and keep the linear probe where it is better."""

from medssl.commands.finetune.run import FinetuneResult, run

__all__ = ["FinetuneResult", "run"]
