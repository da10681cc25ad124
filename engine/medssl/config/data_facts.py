"""What the settings of a method take from the data, and what the two together make impossible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from medssl.config.byol import ByolConfig
from medssl.config.hssl import HsslConfig
from medssl.config.lvm_med import LvmMedConfig
from medssl.config.moco import MocoConfig
from medssl.config.run import RunConfig
from medssl.config.simclr import SimclrConfig
from medssl.config.swav import SwavConfig
from medssl.errors import InputError


class Facts(Protocol):
    """What a data set knows of its scans; each list is in the order of the numbers in a batch."""

    @property
    def modalities(self) -> Sequence[str]:
        """Names of the modalities."""
        ...

    def domains(self) -> tuple[Sequence[str], Sequence[str], Sequence[tuple[int, int]]]:
        """Tasks, groups, and the pairs of both that occur."""
        ...

    def modality_volumes(self) -> Sequence[int]:
        """Volumes per modality."""
        ...


def fitted_to(settings: RunConfig, data: Facts) -> RunConfig:
    """The settings with what only the data can say.

    Raises:
        InputError: a task lies in two groups.
    """
    if isinstance(settings, HsslConfig):
        return settings.for_domains(*data.domains())
    if isinstance(settings, SwavConfig) and settings.prototype_split != "equal":
        return settings.for_modalities(data.modality_volumes())
    return settings


_ALONE: dict[type[RunConfig], str] = {
    SimclrConfig: "an image is told from the others of its batch",
    HsslConfig: "an image is told from the others of its batch",
    LvmMedConfig: "images are matched with each other",
    ByolConfig: "the norms of its heads are those of several images",
}
"""Why these methods learn nothing from one image per step."""


def check_batch(settings: RunConfig, batch_size: int, option: str = "--batch-size") -> None:
    """Refuse a batch from which the method learns nothing.

    Args:
        settings: of a method.
        batch_size: crops per step over all processes.
        option: what it was given with.

    Raises:
        InputError: naming the option and why.
    """
    why = next((said for kind, said in _ALONE.items() if isinstance(settings, kind)), "")
    if isinstance(settings, HsslConfig) and not settings.image_weight:
        why = ""
    if batch_size == 1 and why:
        raise InputError(f"{option} 1: {why}; take at least 2, better many")


def warning(settings: RunConfig, batch_size: int, steps: int, modalities: int) -> str:
    """What cannot be learned with these settings on these data, and the way out; empty where all can.

    Args:
        settings: from `fitted_to`.
        batch_size: crops per step.
        steps: of the whole training.
        modalities: of the data.
    """
    if isinstance(settings, HsslConfig) and (alike := settings.levels_without_choice()):
        return f"every scan has the same {alike}, which teaches nothing; fill it in in the data table"
    if isinstance(settings, SwavConfig):
        return settings.too_few_samples(batch_size, modalities)
    if isinstance(settings, MocoConfig):
        return settings.too_few_keys(batch_size, steps)
    return ""
