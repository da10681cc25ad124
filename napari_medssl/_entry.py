"""The widget that the manifest names, loaded when it is opened: Qt and the panels cost nobody's start."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "MedSSLWidget":
        from napari_medssl.plugin import MedSSLWidget

        return MedSSLWidget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
