"""What weights there are, and whether their files are whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medssl.config.weights import FORMATS, WeightsConfig
from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps
from medssl.store.weights import WeightsRecord, read_registry, resolve

if TYPE_CHECKING:
    from medssl.commands.workspace import Workspace


@dataclass(frozen=True)
class WeightsResult:
    """What was asked for: one entry per weights.

    Args:
        action: list, show or verify.
        weights: entries as JSON values.
        card: text of the model card, for ``show``.
    """

    action: str
    weights: tuple[dict[str, Any], ...]
    card: str = field(default="")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = {"weights": list(self.weights)}
        if self.action == "show":
            values["card"] = self.card
        return values

    def to_text(self) -> str:
        """For the terminal."""
        if not self.weights:
            return "no weights are registered"
        if self.action != "show":
            mark = "  checksum holds" if self.action == "verify" else ""
            return "\n".join(
                f"{entry['name']}  {entry['method']}  {entry['spatial_dims']}D  "
                f"{'/'.join(entry['modalities'])}  {entry['licence']}{mark}"
                for entry in self.weights
            )
        lines = [f"{key}: {value}" for key, value in self.weights[0].items()]
        return "\n".join([*lines, "", self.card]) if self.card else "\n".join(lines)


def run(config: WeightsConfig, workspace: Workspace | None = None) -> Steps[WeightsResult]:
    """List, show or verify weights.

    Args:
        config: the action and a name.
        workspace: not needed by this command.
    """
    if config.action == "import":
        raise InputError(
            "weights import: this version imports no public checkpoints yet "
            f"({', '.join(FORMATS)} are planned); use weights that medssl trained"
        )
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
