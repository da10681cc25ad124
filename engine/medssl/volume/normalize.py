"""Voxel values to [0, 1], the same way for training, embedding and display."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

HOUNSFIELD_KNOTS = ((-1024.0, 0.0), (-200.0, 0.2), (300.0, 0.8), (1500.0, 1.0))
"""HU -> [0, 1]: 60 % of the range for the 500 HU of soft tissue, so that 8 bits resolve 3.3 HU there."""

_SAMPLES = 200_000


@dataclass(frozen=True)
class Normalizer:
    """A monotone piecewise-linear map of intensities onto [0, 1], clipped at both ends.

    CT uses the fixed Hounsfield knots; everything else maps the 0.5th and 99.5th percentile of its
    foreground (values above the darkest tenth of the range, where air and padding live) to 0 and 1.

    Args:
        knots: increasing (intensity, value) pairs.
    """

    knots: tuple[tuple[float, float], ...]

    @classmethod
    def fit(cls, array: NDArray[Any], modality: str) -> Self:
        """Choose the map for one volume.

        Args:
            array: (C, *S) or (*S) voxel values; HU for "CT".
            modality: "CT", or anything else for percentiles.
        """
        if modality == "CT":
            return cls(HOUNSFIELD_KNOTS)
        flat = array.reshape(-1)
        values = flat[:: max(1, flat.size // _SAMPLES)].astype(np.float64)
        values = values[np.isfinite(values)]
        if values.size == 0:
            return cls(((0.0, 0.0), (1.0, 1.0)))
        low, high = np.percentile(values, (0.5, 99.5))
        foreground = values[values > low + 0.1 * (high - low)]
        if foreground.size > 0:
            high = float(np.percentile(foreground, 99.5))
        if not high > low:
            high = max(low + 1.0, float(np.nextafter(low, np.inf)))  # of 2^63 and 1 the sum is 2^63
        return cls(((float(low), 0.0), (float(high), 1.0)))

    def __call__(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise any part of the volume; NaN becomes 0."""
        x, y = zip(*self.knots, strict=True)
        if len(x) == 2:
            values = (array.astype(np.float32) - np.float32(x[0])) * np.float32(1 / (x[1] - x[0]))
            np.clip(values, 0, 1, out=values)
        elif array.dtype.kind in "iu" and array.dtype.itemsize <= 2:
            info = np.iinfo(array.dtype)  # a table is 20 times faster than np.interp on a whole CT
            table = np.interp(np.arange(info.min, info.max + 1), x, y).astype(np.float32)
            values = table[array.astype(np.int32) - info.min]
        else:
            values = np.interp(array, x, y).astype(np.float32)
        return np.asarray(np.nan_to_num(values, copy=False, nan=0.0), dtype=np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file header."""
        return {"knots": [list(knot) for knot in self.knots]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(tuple((float(x), float(y)) for x, y in values["knots"]))
