"""Scans -> patch features in an index."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.commands.workspace import Workspace, index_signature
from medssl.config.embed import EmbedConfig
from medssl.config.resume import under_way
from medssl.data.scan import read_scan, remarks
from medssl.data.table import Row, read_data
from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps
from medssl.retrieval.cells import index_cells
from medssl.retrieval.index import FeatureIndex
from medssl.store.weights import BUNDLED
from medssl.volume import Volume

if TYPE_CHECKING:
    from medssl.inference.load import LoadedEncoder

_SAVE_SECONDS = 60.0  # between two saves of a growing index


@dataclass(frozen=True)
class EmbedResult:
    """What is in the index now.

    Args:
        index: its folder.
        vectors: vectors of all volumes.
        volumes: ids of the volumes in it.
        added: ids of those embedded now.
        failures: (scan, reason) of what was left out.
        notes: (scan, what was chosen, inferred or repaired on reading it).
    """

    index: Path
    vectors: int
    volumes: tuple[str, ...]
    added: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "index": str(self.index),
            "vectors": self.vectors,
            "volumes": list(self.volumes),
            "added": list(self.added),
            "failures": [{"image": image, "reason": reason} for image, reason in self.failures],
            "notes": [{"image": image, "note": note} for image, note in self.notes],
        }

    def to_text(self) -> str:
        """For the terminal."""
        lines = [
            f"{self.index}: {self.vectors} vectors of {len(self.volumes)} volumes ({len(self.added)} added)"
        ]
        lines += [f"left out {image}: {reason}" for image, reason in self.failures]
        return "\n".join([*lines, *(f"note: {remark}" for remark in remarks(self.notes))])


def run(config: EmbedConfig, workspace: Workspace | None = None) -> Steps[EmbedResult]:
    """Embed every scan of the data and enter it into the index; run again, it goes on where it stopped.

    A scan that cannot be read is left out and reported; the only one is an error.

    Args:
        config: weights, data, index folder.
        workspace: keeps weights, and features where there is one scan.
    """
    with under_way(config):
        return (yield from _embed(config, workspace))


def _embed(config: EmbedConfig, workspace: Workspace | None) -> Steps[EmbedResult]:
    rows = read_data(config.data)
    yield Progress(0, len(rows), "loading weights")
    workspace = workspace or Workspace(config.device)
    config = config.model_copy(
        update={"encoder": workspace.suited(config.encoder, (row.image for row in rows))}
    )
    encoder = workspace.encoder(config.encoder)
    index = _open(config, encoder)
    added: list[str] = []
    failures: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    saved = time.monotonic()
    try:
        for number, row in enumerate(rows):
            prefix = f"{number + 1} of {len(rows)}, " if len(rows) > 1 else ""
            try:
                fingerprint = _fingerprint(row)
                if any(info.get("file") == fingerprint for info in index.volumes.values()):
                    continue
                yield Progress(number, len(rows), f"{prefix}reading")
                volume = read_scan(row)
                if volume.spatial_dims != encoder.spatial_dims and len(rows) > 1:
                    raise InputError(
                        f"has {volume.spatial_dims} dimensions, the encoder {encoder.spatial_dims}; "
                        f"for example {BUNDLED[volume.spatial_dims]} takes it"
                    )
            except InputError as error:
                if len(rows) == 1:
                    raise
                failures.append((row.name, str(error)))
                continue
            notes += [(row.name, note) for note in volume.notes]
            if volume.notes:
                yield Progress(
                    number, len(rows), f"{prefix}reading", message="; ".join(volume.notes), notice=True
                )
            features = yield from _features(volume, encoder, workspace, prefix, keep=len(rows) == 1)
            path = str(row.image.resolve())
            for old in [n for n, info in index.volumes.items() if info.get("path") == path]:
                index.remove(old)  # the scan changed since it was embedded
            name = next(n for n in (volume.id, row.name, path) if n and n not in index.volumes)
            cells = index_cells(features, volume, config.seed, config.max_cells)
            index.add(
                name,
                cells,
                path=path,
                file=fingerprint,
                sha256=workspace.hash_of(volume),
                modality=volume.modality,
            )
            added.append(name)
            if time.monotonic() - saved > _SAVE_SECONDS:
                index.save(config.out)
                saved = time.monotonic()
    finally:  # an interrupted cohort keeps what is done
        if added:
            index.save(config.out)
    if not len(index):
        raise InputError(f"{config.data}: no scan could be embedded; the first: {failures[0][1]}")
    return EmbedResult(
        config.out, len(index), tuple(index.volumes), tuple(added), tuple(failures), tuple(notes)
    )


def _open(config: EmbedConfig, encoder: LoadedEncoder) -> FeatureIndex:
    signature = index_signature(encoder)
    if (config.out / "index.json").exists():
        return FeatureIndex.load(config.out, signature)
    if config.out.is_file():
        raise InputError(f"{config.out}: is a file; an index needs a folder")
    index = FeatureIndex(encoder.features.out_channels, signature)
    known = Path(config.encoder).exists()
    index.information["encoder"] = str(Path(config.encoder).resolve()) if known else config.encoder
    return index


def _features(
    volume: Volume, encoder: LoadedEncoder, workspace: Workspace, prefix: str, *, keep: bool
) -> Steps[Volume]:
    """The features of a volume; those of a cohort would push everything else out of the workspace."""
    from medssl.inference.embed import embed_steps

    if keep:
        return (yield from workspace.features_steps(volume, encoder)).features
    steps = embed_steps(volume, encoder)
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            found: Volume = stop.value
            return found
        yield replace(progress, phase=prefix + progress.phase)


def _fingerprint(row: Row) -> str:
    """Tells a changed file or folder from an unchanged one without reading it.

    Raises:
        InputError: there is no such file, for example behind a link.
    """
    try:
        return _state(row.image)
    except OSError as error:
        raise InputError(f"{row.image}: {error.strerror or error}; check the path or the link") from error


def _state(image: Path) -> str:
    if not image.is_dir():
        status = image.stat()
        return f"{image.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    files = [file.stat() for file in sorted(image.iterdir()) if file.is_file()]
    newest = max((status.st_mtime_ns for status in files), default=0)
    return f"{image.resolve()}|{sum(status.st_size for status in files)}|{newest}"
