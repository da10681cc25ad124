"""Use a fine-tuned model on a scan: a mask, boxes or classes."""

from medssl.commands.predict.run import PredictResult, run
from medssl.commands.predict.segmentation import segment

__all__ = ["PredictResult", "run", "segment"]
