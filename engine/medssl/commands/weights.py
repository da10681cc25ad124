"""What weights there are, whether their files are whole, and public checkpoints made into weights."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from medssl.config.weights import FORMATS, WeightsConfig
from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps
from medssl.store.atomic import write_atomically
from medssl.store.sources import SOURCES, Source
from medssl.store.weights import EXPORTED, WeightsRecord, read_registry, resolve

if TYPE_CHECKING:
    from medssl.commands.workspace import Workspace
    from medssl.data.cache import Cache
    from medssl.nets.encoders import AnyEncoder


@dataclass(frozen=True)
class WeightsResult:
    """What was asked for: one entry per weights.

    Args:
        action: list, show, verify or import.
        weights: entries as JSON values.
        card: text of the model card, for ``show`` and ``import``.
    """

    action: str
    weights: tuple[dict[str, Any], ...]
    card: str = field(default="")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = {"weights": list(self.weights)}
        if self.card:
            values["card"] = self.card
        return values

    def to_text(self) -> str:
        """For the terminal."""
        if not self.weights:
            return "no weights are registered"
        if self.action not in ("show", "import"):
            mark = "  checksum holds" if self.action == "verify" else ""
            return "\n".join(
                f"{entry['name']}  {entry['method']}  {entry['spatial_dims']}D  "
                f"{'/'.join(entry['modalities'])}  {entry['licence']}{mark}"
                for entry in self.weights
            )
        lines = [f"{key}: {value}" for key, value in self.weights[0].items()]
        return "\n".join([*lines, "", self.card]) if self.card else "\n".join(lines)


def run(config: WeightsConfig, workspace: Workspace | None = None) -> Steps[WeightsResult]:
    """List, show or verify weights, or import a public checkpoint.

    Args:
        config: the action and a name or file.
        workspace: not needed by this command.
    """
    if config.action == "import":
        return (yield from _import(config))
    if config.action == "show":
        if config.name is None:
            raise InputError("weights show: name the weights to show, or see medssl weights list")
        record = resolve(config.name)
        yield Progress(1, 1, "checking weights")
        return WeightsResult("show", (_entry(record),), record.card)
    if config.action == "verify" and config.name is not None:
        names = [config.name]
    else:
        names = sorted(read_registry())
    entries = []
    for number, name in enumerate(names, start=1):
        entries.append(_entry(resolve(name)))  # raises where a checksum differs
        yield Progress(number, len(names), "checking weights")
    return WeightsResult(config.action, tuple(entries))


def _import(config: WeightsConfig) -> Steps[WeightsResult]:
    """Checkpoint -> folder with ``exported/model.safetensors`` and its card."""
    if config.name is None:
        raise InputError("weights import: name the checkpoint file, for example Genesis_Chest_CT.pt")
    if config.format not in SOURCES:
        given = "say" if config.format is None else f"{config.format} is unknown; say"
        raise InputError(f"--format: {given} what the checkpoint is: {', '.join(FORMATS)}")
    file, source = Path(config.name), SOURCES[config.format]
    if not file.is_file():
        raise InputError(f"{file}: no such file; download it from {source.url}")
    out = config.out or file.with_name(file.name.split(".")[0])
    if (out / EXPORTED).exists() or (out.exists() and not out.is_dir()):
        raise InputError(f"{out}: is there already; choose another --out")
    yield Progress(0, 3, "reading", message=f"reading {file}")

    from medssl.inference.device import choose_device
    from medssl.nets.transfer import load_foreign
    from medssl.training.adoption import card, fit_on_scans, header, needs_projection
    from medssl.training.export import export_weights

    backbone, report = load_foreign(file, config.format)
    encoder = cast("AnyEncoder", backbone.encoder)
    yield Progress(1, 3, "reading", message=str(report), notice=True)
    dense = None
    if config.data is not None:
        with tempfile.TemporaryDirectory(prefix="medssl-", ignore_cleanup_errors=True) as scratch:
            cache = yield from _open_data(config.data, source, Path(scratch))
            yield Progress(2, 3, "fitting", message="fitting the projection of the dense feature")
            device = choose_device(config.device)
            dense = fit_on_scans(backbone, encoder, cache, seed=config.seed, device=device)
    elif needs_projection(encoder):
        yield Progress(2, 3, "writing", message=_NO_PROJECTION, notice=True)
    metadata = header(backbone, source, report, file, config.data)
    export_weights(out / EXPORTED, backbone, metadata, dense=dense)
    text = card(metadata, source, has_projection=dense is not None)
    write_atomically((out / EXPORTED).with_name("card.md"), text)
    yield Progress(3, 3, "writing", message=f"licence of the weights: {source.licence}", notice=True)
    return WeightsResult("import", (_entry(resolve(out)),), text)


_NO_PROJECTION = (
    "no projection of the dense feature is fitted without --data SCANS: the weights can be fine-tuned, "
    "not embedded with"
)


def _open_data(data: Path, source: Source, scratch: Path) -> Steps[Cache]:
    """The prepared cache or list of caches; scans that are not prepared are brought into ``scratch``."""
    from medssl.config.prepare import CacheConfig
    from medssl.data.shards import is_prepared, open_cache

    if is_prepared(data):
        return open_cache(data)
    from medssl.data.preparation import prepare_cache
    from medssl.data.table import TRAINING_SPLITS, read_data

    rows = read_data(data, TRAINING_SPLITS)
    settings = CacheConfig(spacing_range=source.spacing_range)
    summary = yield from prepare_cache(rows, scratch / "cache", settings)
    for image, reason in summary.failures:
        yield Progress(1, 3, "preparing", message=f"left out {image}: {reason}", notice=True)
    return open_cache(scratch / "cache")


def _entry(record: WeightsRecord) -> dict[str, Any]:
    metadata = record.metadata
    return {
        "name": record.name,
        "file": str(record.path),
        "megabytes": round(record.path.stat().st_size / 1e6, 2),
        "sha256": record.sha256,
        "method": metadata["method"],
        "spatial_dims": metadata["encoder"].get("spatial_dims"),
        "encoder": metadata["encoder"],
        "preprocessing": metadata["preprocessing"],
        "modalities": list(metadata.get("modalities", [])),
        "licence": record.licence,
    }
