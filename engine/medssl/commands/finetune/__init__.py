"""Train with labels: segmentation, detection, classification."""

from medssl.commands.finetune.result import FinetuneResult
from medssl.commands.finetune.run import run

__all__ = ["FinetuneResult", "run"]
