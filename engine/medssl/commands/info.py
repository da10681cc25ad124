"""What is in a file: geometry, modality, values, series. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.config.info import InfoConfig
from medssl.io import SeriesInfo, list_series, read_volume
from medssl.io.axes import lps_direction, lps_origin, orientation_code
from medssl.jobs.progress import Progress, Steps
from medssl.volume import Volume

if TYPE_CHECKING:
    from medssl.commands.workspace import Workspace

_SAMPLES = 1_000_000


@dataclass(frozen=True)
class InfoResult:
    """Facts about one image.

    Args:
        path: as given.
        id: name that other commands use for the volume.
        modality: "CT", "MR", "PT", or empty.
        channels: values per voxel.
        dtype: numpy type of the voxels.
        shape: voxels per axis, array order (z, y, x).
        spacing: mm in the same order; None where the file states none.
        size_mm: extent in the same order; None without spacing.
        origin: LPS mm [x, y, z] of the first voxel's centre.
        direction: rows of the ITK direction matrix, (x, y, z) order.
        orientation: side of the patient to which file axes x, y, z grow, for example "LPS".
        is_oblique: whether the axes are tilted against the body's.
        intensity: lowest, 1st percentile, median, 99th percentile and highest value.
        series: DICOM series found, those that hold no image included.
        notes: what was chosen, inferred or repaired.
    """

    path: str
    id: str
    modality: str
    channels: int
    dtype: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    size_mm: tuple[float, ...] | None
    origin: tuple[float, ...]
    direction: tuple[tuple[float, ...], ...]
    orientation: str
    is_oblique: bool
    intensity: dict[str, float]
    series: tuple[SeriesInfo, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; mm are LPS [x, y, z], shapes and spacings in array order."""
        return {
            "path": self.path,
            "id": self.id,
            "modality": self.modality,
            "channels": self.channels,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "spacing_mm": None if self.spacing is None else list(self.spacing),
            "size_mm": None if self.size_mm is None else list(self.size_mm),
            "origin_mm": list(self.origin),
            "direction": [list(row) for row in self.direction],
            "orientation": self.orientation,
            "oblique": self.is_oblique,
            "intensity": self.intensity,
            "series": [one.to_json() for one in self.series],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """For the terminal."""
        axes = "z y x"[-2 * len(self.shape) + 1 :]
        tilt = ", oblique" if self.is_oblique else ""
        values = self.intensity
        lines = [
            f"{self.path}",
            f"  id          {self.id}",
            f"  modality    {self.modality or 'unknown'}",
            f"  shape       {_join(self.shape, ' x ')} ({axes}), {self.channels} channel, {self.dtype}",
        ]
        if self.spacing is None or self.size_mm is None:
            lines.append("  spacing     unknown")
        else:
            lines += [
                f"  spacing     {_join(self.spacing, ' x ')} mm, extent {_join(self.size_mm, ' x ')} mm",
                f"  origin      {_join(self.origin, ', ')} mm (LPS x, y, z)",
                f"  direction   {'; '.join(_join(row, ' ') for row in self.direction)}",
                f"  orientation {self.orientation or '-'} (x, y, z grow towards these sides{tilt})",
            ]
        lines.append(
            f"  intensity   {values['min']:g} to {values['max']:g}, median {values['median']:g}, "
            f"1st to 99th percentile {values['p1']:g} to {values['p99']:g}"
        )
        if self.series:
            lines.append(f"  series      {len(self.series)}")
            lines += [f"    {_series_line(one)}" for one in self.series]
        return "\n".join(lines + [f"  note        {note}" for note in self.notes])


def run(config: InfoConfig, workspace: Workspace | None = None) -> Steps[InfoResult]:
    """Read one image and describe it.

    Args:
        config: path, series and frame.
        workspace: not needed by this command.
    """
    yield Progress(0, 2, "looking for series")
    series = tuple(list_series(config.path))
    yield Progress(1, 2, "reading")
    volume = read_volume(config.path, config.series, config.frame)
    return _describe(config, volume, series)


def _describe(config: InfoConfig, volume: Volume, series: tuple[SeriesInfo, ...]) -> InfoResult:
    geometry = volume.geometry
    known = geometry.has_spacing
    flat = volume.array.reshape(-1)
    p1, median, p99 = np.percentile(flat[:: max(1, flat.size // _SAMPLES)], (1, 50, 99))
    return InfoResult(
        path=str(config.path),
        id=volume.id,
        modality=volume.modality,
        channels=volume.array.shape[0],
        dtype=str(volume.array.dtype),
        shape=geometry.shape,
        spacing=geometry.spacing if known else None,
        size_mm=geometry.size_mm if known else None,
        origin=lps_origin(geometry),
        direction=tuple(tuple(float(value) for value in row) for row in lps_direction(geometry)),
        orientation=orientation_code(geometry),
        is_oblique=not geometry.is_axis_aligned,
        intensity={
            "min": float(flat.min()),
            "p1": float(p1),
            "median": float(median),
            "p99": float(p99),
            "max": float(flat.max()),
        },
        series=series,
        notes=volume.notes,
    )


def _join(values: tuple[float, ...], separator: str) -> str:
    return separator.join(f"{value:.6g}" for value in values)


def _series_line(one: SeriesInfo) -> str:
    if one.reason:
        what = one.reason
    else:
        frames = f", {one.frames} volumes" if one.frames > 1 else ""
        what = f"{_join(one.shape, ' x ')} voxels{frames}"
    return f"{one.uid}  {one.modality or '?'}  {what}" + (f"  {one.description}" if one.description else "")
