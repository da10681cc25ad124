"""What a method wants of its source crops where the settings leave it open."""

from __future__ import annotations

from medssl.config.hssl import HsslConfig
from medssl.config.lvm_med import LvmMedConfig
from medssl.config.pretrain import SamplingConfig
from medssl.config.run import RunConfig
from medssl.config.swav import SwavConfig

LEAST_CROP = {2: 224, 3: 64}
"""Smallest edge of a source crop by default, voxels."""


def wanted_sampling(sampling: SamplingConfig, settings: RunConfig, dims: int) -> SamplingConfig:
    """The settings with what the method wants where they leave it open; see their descriptions."""
    hssl = settings if isinstance(settings, HsslConfig) else None
    by_modality = isinstance(settings, LvmMedConfig) or (
        isinstance(settings, SwavConfig) and settings.modality_mode != "shared"
    )
    wanted = {
        "crop": max(LEAST_CROP[dims], view_size(settings)),
        "family": "task" if hssl is not None else "modality" if by_modality else "group",
        "together": 2 if hssl is not None and hssl.negatives == "same_task" else 1,
    }
    left_open = {name: value for name, value in wanted.items() if getattr(sampling, name) is None}
    return sampling.model_copy(update=left_open)


def view_size(settings: RunConfig) -> int:
    """Edge of the largest view of the method, 0 where it takes the source crop as it is."""
    views = getattr(settings, "views", settings)
    return getattr(views, "global_size", None) or getattr(views, "size", None) or 0
