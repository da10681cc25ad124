"""What every task begins with, and what it ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.config.finetune import FinetuneConfig
from medssl.data.table import Row
from medssl.errors import InputError
from medssl.store.runs import Run
from medssl.volume import Volume
from medssl.volume.working_grid import SPACING_RANGE

if TYPE_CHECKING:
    from medssl.commands.workspace import Workspace
    from medssl.inference.load import LoadedEncoder
    from medssl.training.loop import FitResult


@dataclass(frozen=True, eq=False)
class Start:
    """A run that is about to begin.

    Args:
        config: all settings.
        folder: run folder.
        scratch: folder for arrays on disk, removed at the end.
        warm: encoders and features.
        loaded: the weights to start from; None where everything is new.
    """

    config: FinetuneConfig
    folder: Run
    scratch: Path
    warm: Workspace
    loaded: LoadedEncoder | None

    @property
    def spacing_range(self) -> tuple[float, float]:
        """Of the encoder, mm."""
        return SPACING_RANGE if self.loaded is None else self.loaded.spacing_range

    @property
    def dims(self) -> int | None:
        """What the encoder takes; None where it is still to be made."""
        return None if self.loaded is None else self.loaded.spatial_dims

    @property
    def frozen_steps(self) -> int:
        """Steps during which the encoder of a network does not learn."""
        if self.loaded is None or self.config.mode == "full":
            return 0
        steps = self.config.loop().steps
        return steps if self.config.mode == "probe" else round(self.config.frozen_share * steps)


@dataclass(frozen=True)
class Outcome:
    """What a task reports.

    Args:
        use: what was exported to the run folder; "" after a signal.
        message: how good it is, in a sentence.
        held_out: what the models were judged on.
        scores: figures as plain values by model.
        fitted: how training ended; None where nothing was trained.
        best_step: step of the weights that were kept.
    """

    use: str
    message: str
    held_out: str
    scores: Mapping[str, Any]
    fitted: FitResult | None = None
    best_step: int = 0


def same_dims(row: Row, volume: Volume, dims: int | None) -> int:
    """Dimensions that the scans of a run share.

    Args:
        row: where the scan comes from.
        volume: the scan.
        dims: of the encoder or of the scans before; None where there is neither.

    Raises:
        InputError: the scan has others.
    """
    if dims is not None and volume.spatial_dims != dims:
        raise InputError(
            f"{row.origin}: {row.image.name} has {volume.spatial_dims} dimensions, the model {dims}; "
            "give it alone, or --init with weights for it"
        )
    return volume.spatial_dims
