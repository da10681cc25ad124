"""From a file of any kind to the normalised voxels of the training cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medssl.config.prepare import CacheConfig
from medssl.data.cache import CacheWriter
from medssl.data.labelled import read_labelled
from medssl.data.parallel import read_in_order
from medssl.data.scan import read_scan, remarks
from medssl.data.table import Row
from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps
from medssl.volume import Volume
from medssl.volume.normalize import Normalizer
from medssl.volume.resample import interpolate, interpolation_matrices, resample_nearest
from medssl.volume.working_grid import working_geometry

MARGIN = 4
"""Voxels kept around the foreground."""

_LEAST_EDGE = 64
"""A scan cropped for ``max_mb`` keeps at least this many voxels per axis."""

_SPARE = 256
"""Bytes of a cropped scan's share that stay free: its voxels are rounded up, and its line says the limit."""

Voxel = TypeVar("Voxel", bound=np.generic)


@dataclass(frozen=True)
class Prepared:
    """One scan, ready to be written.

    Args:
        values: (z, y, x) float32 in [0, 1]; z = 1 for an image.
        ndim: 2 or 3.
        spacing: mm per voxel, three numbers.
        modality: of the row, else of the file.
        label: (z, y, x) mask value, 255 unlabelled; None where masks are not kept or there is none.
        notes: what was chosen, inferred or repaired on reading.
    """

    values: NDArray[np.float32]
    ndim: int
    spacing: tuple[float, float, float]
    modality: str
    label: NDArray[np.uint8] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What `prepare_cache` did.

    Args:
        folder: the cache.
        volumes: volumes in the cache now.
        reused: of these, how many were there before.
        cropped: scans cropped to fit the size asked for.
        megabytes: size of the voxels, their masks and the index.
        failures: (scan, reason) of what was left out.
        renewed: volumes that were there and got what the data says of them now.
        removed: volumes taken out, because the data has them no longer or they cannot be read any more.
        notes: (scan, note) of what was chosen, inferred or repaired on reading those that were read now.
    """

    folder: Path
    volumes: int
    reused: int
    cropped: int
    megabytes: float
    failures: tuple[tuple[str, str], ...]
    renewed: int = 0
    removed: int = 0
    notes: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        values["folder"] = str(self.folder)
        values["failures"] = [{"image": image, "reason": reason} for image, reason in self.failures]
        values["notes"] = [{"image": image, "note": note} for image, note in self.notes]
        return values

    def to_text(self) -> str:
        """For the terminal."""
        lines = [
            f"{self.folder}: {self.volumes} volumes, {self.megabytes:.1f} MB"
            f" ({self.reused} were there, {self.cropped} cropped to fit)"
        ]
        if self.renewed:
            lines.append(f"{self.renewed} of those that were there have another row in the data now")
        if self.removed:
            lines.append(f"{self.removed} taken out: no longer in the data, or no longer readable")
        return "\n".join([*lines, *self.remarks])

    @property
    def remarks(self) -> list[str]:
        """Notes, alike ones together, and what was left out: what whoever gave the scans must be told."""
        return [
            *remarks(self.notes),
            *(f"left out {image}: {reason}" for image, reason in self.failures),
        ]


def prepare_volume(volume: Volume, config: CacheConfig, mask: NDArray[np.integer] | None = None) -> Prepared:
    """Resample to the working grid, normalise, crop to the foreground.

    Args:
        volume: any scan; several channels are averaged.
        config: spacing range and foreground threshold.
        mask: (*S) mask value per voxel of the scan, 0 to 254, 255 unlabelled; taken along.
    """
    array = volume.array if len(volume.array) == 1 else volume.array.mean(axis=0, keepdims=True)
    normalise = Normalizer.fit(array, volume.modality)
    # training zooms by itself, so small fields are stored as they are
    grid = working_geometry(volume.geometry, config.spacing_range, field_voxels=0)
    if grid is not volume.geometry:
        array = interpolate(array, interpolation_matrices(volume.geometry, grid))
        mask = None if mask is None else resample_nearest(mask[None], volume.geometry, grid)[0]
    values = normalise(array)[0]
    box = foreground_box(values, config.foreground)
    values = values[box]
    label = None if mask is None else mask[box].astype(np.uint8)
    spacing = tuple(float(s) for s in grid.spacing)
    if values.ndim == 2:
        label = None if label is None else label[None]
        return Prepared(values[None], 2, (1.0, *spacing), volume.modality, label, volume.notes)  # type: ignore[arg-type]
    return Prepared(values, 3, spacing, volume.modality, label, volume.notes)  # type: ignore[arg-type]


def foreground_box(values: NDArray[np.float32], threshold: float) -> tuple[slice, ...]:
    """The box around what is not air: slices with more than 1 % of voxels above ``threshold``, with a margin.

    The share keeps out single noisy voxels and cables; where nothing passes, the whole array is kept.
    """
    mask = values > threshold
    box = []
    for axis, size in enumerate(mask.shape):
        share = mask.mean(axis=tuple(other for other in range(mask.ndim) if other != axis))
        (found,) = np.nonzero(share > 0.01)
        if found.size == 0 or threshold <= 0:
            return (slice(None),) * mask.ndim
        box.append(slice(max(0, int(found[0]) - MARGIN), min(size, int(found[-1]) + 1 + MARGIN)))
    return tuple(box)


def crop_to(values: NDArray[Voxel], voxels: int) -> NDArray[Voxel]:
    """The central box of at most ``voxels`` voxels, never under 64 per axis; the longest axes give first."""
    sizes = list(values.shape)
    while np.prod(sizes) > voxels and max(sizes) > _LEAST_EDGE:
        longest = sizes.index(max(sizes))
        others = int(np.prod(sizes)) // sizes[longest]
        second = max([n for n in sizes if n < sizes[longest]], default=0)
        sizes[longest] = max(_LEAST_EDGE, min(sizes[longest] - 1, max(second, voxels // others)))
    return values[
        tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(values.shape, sizes, strict=True))
    ]


def prepare_row(row: Row, config: CacheConfig) -> Prepared | str:
    """Read and prepare one row; a reason instead where the file cannot be used."""
    try:
        if config.labels and row.label is not None:
            volume, mask = read_labelled(row)
            return prepare_volume(volume, config, mask)
        return prepare_volume(read_scan(row), config)
    except (InputError, OSError, ValueError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return reason.removeprefix(f"{row.image}: ")  # the list of failures names it already


def prepare_cache(
    rows: Sequence[Row], folder: Path, config: CacheConfig, *, max_mb: float | None = None, workers: int = 0
) -> Steps[Summary]:
    """Bring the cache up to the rows; a scan that is there already is not read again.

    What a row says of its scan (split, class, group, ...) holds at once, and volumes without a row are taken
    out: nobody is to learn from a scan that was moved to the test set.

    With ``max_mb`` small files come first and a scan gets at most an equal share of what is left, so that
    the cache holds something of every scan; what it cannot have is cropped off around the centre.

    Args:
        rows: scans.
        folder: cache folder.
        config: settings.
        max_mb: size limit in MB (10^6 bytes), masks and index included.
        workers: reading processes; 0 takes one per core, at most 4.

    Raises:
        InputError: no scan could be prepared, or the cache was made for another limit.
    """
    writer = CacheWriter(folder, config)
    _check_limit(writer, max_mb)
    failures: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    before = set(writer.lines)
    todo, reused, renewed = _compare(rows, writer, failures)
    if max_mb is not None:
        # masks first: those of later volumes would leave holes for the scans that have none
        todo.sort(key=lambda item: (config.labels and item[0].label is None, item[2]))
    cropped = done = 0
    results = read_in_order([row for row, _, _ in todo], partial(prepare_row, config=config), workers)
    try:
        for (row, source, version), prepared in zip(todo, results, strict=True):
            reason = prepared if isinstance(prepared, str) else ""
            if not isinstance(prepared, str):
                notes += [(row.origin or str(row.image), note) for note in prepared.notes]
                values, label = prepared.values, prepared.label
                made = {"ndim": prepared.ndim, "spacing": list(prepared.spacing), "stated": row.modality}
                facts = {"source": source, "version": version, **made, **_facts(row, prepared.modality)}
                if max_mb is not None:
                    left = max_mb * 1e6 - writer.nbytes
                    values, label = _fitting(writer, prepared, facts, left / (len(todo) - done))
                    if values.size < prepared.values.size:
                        facts["limit"] = max_mb
                    if writer.size(writer.line(values.shape, facts, label)) > left:
                        reason = f"over the limit of {max_mb:g} MB"
                if not reason:
                    cropped += "limit" in facts
                    writer.add(values, facts, label)
            if reason:
                failures.append((row.origin or str(row.image), reason))
                if source in writer.lines:
                    writer.remove(source)  # left out is left out
            done += 1
            yield Progress(done, len(todo), "preparing", {"megabytes": writer.nbytes / 1e6}, row.name)
    finally:
        results.close()
        writer.close()
    if not writer.lines:
        raise InputError(f"{folder}: no scan could be prepared; first reason: {failures[0][1]}")
    return Summary(
        folder,
        len(writer.lines),
        reused,
        cropped,
        writer.nbytes / 1e6,
        tuple(failures),
        renewed,
        len(before - set(writer.lines)),
        tuple(notes),
    )


def _fitting(
    writer: CacheWriter, prepared: Prepared, facts: dict[str, Any], share: float
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Voxels and mask of a scan, cropped so that it takes ``share`` bytes where it can be so small.

    Where nothing is left to share, nothing is cropped: the scan is left out.
    """
    values, label = prepared.values, prepared.label
    each = np.dtype(writer.config.dtype).itemsize + (label is not None)  # bytes of a voxel and its mask
    beside = writer.size(writer.line(values.shape, facts, label)) - values.size * each
    if share <= 0 or share >= values.size * each + beside:
        return values, label
    voxels = int((share - beside - _SPARE) / each)
    return crop_to(values, voxels), None if label is None else crop_to(label, voxels)


def _check_limit(writer: CacheWriter, max_mb: float | None) -> None:
    """A cache only grows: what was cropped off is not there to give back, and nothing shrinks."""
    before = max((line["limit"] for line in writer.lines.values() if "limit" in line), default=None)
    if before is not None and (max_mb is None or max_mb > before):
        raise InputError(
            f"{writer.folder}: holds scans cropped to fit --max-mb {before:g}; give that limit again, or "
            "another folder"
        )
    # voxels alone: subjects may have longer names since, and earlier versions counted neither index nor gaps
    item = np.dtype(writer.config.dtype).itemsize
    held = sum(int(np.prod(line["shape"])) * (item + ("labels" in line)) for line in writer.lines.values())
    if max_mb is not None and held > max_mb * 1e6:
        raise InputError(
            f"{writer.folder}: holds {held / 1e6:.1f} MB already; --max-mb {max_mb:g} needs another folder"
        )


def _compare(
    rows: Sequence[Row], writer: CacheWriter, failures: list[tuple[str, str]]
) -> tuple[list[tuple[Row, str, str]], int, int]:
    """Bring what the cache says of its volumes up to the rows.

    Args:
        rows: scans.
        writer: volumes whose row is gone are taken out of its cache.
        failures: gets (scan, reason) of files that cannot be looked at.

    Returns:
        (row, source, version) of what has to be read, and how many volumes stay, and how many of these got
        other facts.
    """
    todo: list[tuple[Row, str, str]] = []
    reused = renewed = 0
    present: set[str] = set()
    for row in rows:
        source = _source(row)
        try:
            version = _row_version(row, writer.config)
        except OSError as error:
            reason = "the link leads nowhere" if row.image.is_symlink() else str(error.strerror or error)
            failures.append((row.origin or str(row.image), reason))
            continue
        present.add(source)
        line = writer.lines.get(source)
        if line is None or line["version"] != version or _is_normalised_anew(row, line):
            todo.append((row, source, version))
            continue
        reused += 1
        facts = _facts(row, line["modality"])
        if any(line.get(name, "") != value for name, value in facts.items()):
            writer.restate(source, facts)
            renewed += 1
    for source in set(writer.lines) - present:
        writer.remove(source)
    return todo, reused, renewed


def _is_normalised_anew(row: Row, line: Mapping[str, Any]) -> bool:
    """Whether the row names another modality than the volume was normalised as."""
    stated = line.get("stated", row.modality and line["modality"])  # caches of earlier versions do not say
    return row.modality not in (stated, line["modality"])


def _facts(row: Row, modality: str) -> dict[str, Any]:
    return {
        "modality": modality,
        "task": row.task,
        "group": row.group or modality,
        "subject": row.subject,
        "split": row.split,
        "class": ";".join(sorted(row.classes)),
    }


def _source(row: Row) -> str:
    """Identity of a row that survives moving the data: no path leaves the machine with the cache."""
    return hashlib.sha256(f"{row.name}|{row.subject}".encode()).hexdigest()[:32]


def _row_version(row: Row, config: CacheConfig) -> str:
    image = _version(row.image)
    return f"{image}+{_version(row.label)}" if config.labels and row.label is not None else image


def _version(path: Path) -> str:
    """Size (first, so that versions sort by it) and time of change of a file or of a series folder."""
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    stats = [file.stat() for file in files]
    total = sum(stat.st_size for stat in stats)
    return f"{total:015d}-{max((stat.st_mtime_ns for stat in stats), default=0)}"
