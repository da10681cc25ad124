"""An image with its place in the patient."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.volume.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels, where they lie, and what they measure.

    Args:
        array: (C, *S) voxel values; CT in Hounsfield units. S equals ``geometry.shape``.
        geometry: grid of the voxels.
        modality: "CT", "MR", "PT" or "" where unknown.
        id: a short name that is unique within a project or a cohort.
        notes: what was inferred or repaired on reading, one sentence each, to be shown to the user.

    Raises:
        ValueError: the array does not fit the geometry.
    """

    array: NDArray[Any]
    geometry: Geometry
    modality: str = ""
    id: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.array.ndim != self.geometry.ndim + 1 or self.array.shape[1:] != self.geometry.shape:
            raise ValueError(f"array {self.array.shape} must be (C, *{self.geometry.shape})")

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return self.geometry.ndim

    def with_array(self, array: NDArray[Any], **changes: Any) -> Volume:
        """Other values in the same place: a mask, a map, a filtered image.

        Args:
            array: (C, *S), or (*S) for one channel.
            **changes: other fields to replace.
        """
        values = np.asarray(array)
        if values.ndim == self.geometry.ndim:
            values = values[None]
        return replace(self, array=values, **changes)
