"""The methods, one file per paper; a method is built from its settings and a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from medssl.config.run import RunConfig
from medssl.protocols import Trainable


@dataclass(frozen=True)
class MethodEntry:
    """Where a method lives; nothing is imported until it is used.

    Args:
        config: "module:Class" of its settings.
        builder: "module:function" that takes (settings, backbone, number of modalities).
        title: the method and its source in one line.
    """

    config: str
    builder: str
    title: str

    def config_class(self) -> type[RunConfig]:
        """The class of the settings."""
        return _load(self.config)  # type: ignore[no-any-return]

    def build(self, config: RunConfig, backbone: Any, modalities: int) -> Trainable:
        """The method over a backbone, for data of ``modalities`` modalities."""
        return _load(self.builder)(config, backbone, modalities)  # type: ignore[no-any-return]


METHODS: dict[str, MethodEntry] = {
    "swav": MethodEntry(
        "medssl.config.swav:SwavConfig",
        "medssl.methods.swav:build",
        "SwAV-medical: online clustering (Ghesu et al. 2022)",
    ),
    "hssl": MethodEntry(
        "medssl.config.hssl:HsslConfig",
        "medssl.methods.hssl:build",
        "HSSL: hierarchical learning on aggregated domains (Zheng et al. 2021)",
    ),
    "lvm-med": MethodEntry(
        "medssl.config.lvm_med:LvmMedConfig",
        "medssl.methods.lvm_med:build",
        "LVM-Med: second-order graph matching (Nguyen et al. 2023)",
    ),
    "simclr": MethodEntry(
        "medssl.config.simclr:SimclrConfig",
        "medssl.methods.simclr:build",
        "SimCLR: contrast within the batch (Chen et al. 2020)",
    ),
    "moco": MethodEntry(
        "medssl.config.moco:MocoConfig",
        "medssl.methods.moco:build",
        "MoCo v2: contrast with a queue of keys (Chen et al. 2020)",
    ),
    "byol": MethodEntry(
        "medssl.config.byol:ByolConfig",
        "medssl.methods.byol:build",
        "BYOL: predict a slower copy of the network (Grill et al. 2020)",
    ),
    "synthesis": MethodEntry(
        "medssl.config.synthesis:SynthesisConfig",
        "medssl.methods.synthesis:build",
        "randomised synthesis: labels of generated volumes in any contrast (after Dey et al. 2025)",
    ),
    "models-genesis": MethodEntry(
        "medssl.config.models_genesis:ModelsGenesisConfig",
        "medssl.methods.models_genesis:build",
        "Models Genesis: restore what four corruptions changed (Zhou et al. 2021)",
    ),
    "spark": MethodEntry(
        "medssl.config.spark:SparkConfig",
        "medssl.methods.spark:build",
        "SparK: reconstruct cells hidden from a sparse encoder (Tian et al. 2023); in 3D also S3D",
    ),
    "mae": MethodEntry(
        "medssl.config.mae:MaeConfig",
        "medssl.methods.mae:build",
        "MAE for CNNs: reconstruct voxels replaced at the input (He et al. 2022, Wald et al. 2025)",
    ),
}


def _load(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)


__all__ = ["METHODS", "MethodEntry"]
