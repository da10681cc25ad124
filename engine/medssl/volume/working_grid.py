"""The grid on which the encoder sees a volume."""

from __future__ import annotations

from medssl.volume.geometry import Geometry

SPACING_RANGE = (0.5, 1.25)
"""Millimetres per voxel the encoders are trained for: cells of stride 4 are then 2 to 5 mm."""


def working_geometry(geometry: Geometry, spacing_range: tuple[float, float] = SPACING_RANGE) -> Geometry:
    """The same box on a grid whose spacing lies within ``spacing_range`` along every axis.

    An axis inside the range is left alone, so most scans are embedded on their own voxels. An image
    without physical size is never resampled.

    Args:
        geometry: grid of the volume.
        spacing_range: smallest and largest spacing, mm.
    """
    if not geometry.has_spacing:
        return geometry
    low, high = spacing_range
    shape = tuple(
        size if low <= spacing <= high else max(1, round(size * spacing / min(max(spacing, low), high)))
        for size, spacing in zip(geometry.shape, geometry.spacing, strict=True)
    )
    return geometry if shape == geometry.shape else geometry.resampled(shape)
