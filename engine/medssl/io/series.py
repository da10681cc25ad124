"""What a chooser of DICOM series shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SeriesInfo:
    """One series of a folder, as shown to someone who chooses.

    Args:
        uid: what to pass as ``series``; ":2" and so on name further stacks of one series.
        modality: as stated in the files, empty where not.
        description: series description without the patient's name and ID.
        files: number of files.
        shape: slices, rows, columns; empty where there is no image.
        spacing: mm in the same order (mean slice distance); empty where unknown.
        frames: volumes over time, echo or b-value.
        reason: why it cannot be read as an image; empty where it can.
    """

    uid: str
    modality: str
    description: str
    files: int
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    frames: int = 1
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values; shape and spacing in array order (z, y, x)."""
        return asdict(self)
