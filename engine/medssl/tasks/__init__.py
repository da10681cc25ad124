"""Supervised tasks: the same shape as a method, with labels."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskEntry:
    """Where a task lives; both are imported when the task is chosen.

    Args:
        config: "module:class" of its settings, torch-free.
        task: "module:class" of the `medssl.protocols.Task`.
    """

    config: str
    task: str


TASKS = {
    "segmentation": TaskEntry(
        "medssl.config.segmentation:SegmentationConfig", "medssl.tasks.segmentation:SegmentationTask"
    ),
    "detection": TaskEntry("medssl.config.detection:DetectionConfig", "medssl.tasks.detection:DetectionTask"),
    "classification": TaskEntry(
        "medssl.config.classification:ClassificationConfig", "medssl.tasks.classification:ClassificationTask"
    ),
}

__all__ = ["TASKS", "TaskEntry"]
