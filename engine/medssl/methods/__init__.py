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
}


def _load(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)


__all__ = ["METHODS", "MethodEntry"]
