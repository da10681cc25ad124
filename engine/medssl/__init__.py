"""Self-supervised learning, search and few-label segmentation for CT and MR."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medssl.inference.embed import embed_volume
    from medssl.inference.load import load_encoder
    from medssl.io import read_volume, write_volume
    from medssl.volume import Geometry, Volume

__version__ = "0.1.0"

__all__ = [
    "Geometry",
    "Volume",
    "__version__",
    "embed_volume",
    "load_encoder",
    "read_volume",
    "write_volume",
]

_HOMES = {
    "Geometry": "medssl.volume",
    "Volume": "medssl.volume",
    "embed_volume": "medssl.inference.embed",
    "load_encoder": "medssl.inference.load",
    "read_volume": "medssl.io",
    "write_volume": "medssl.io",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: ``import medssl`` must load neither torch nor SimpleITK."""
    if name not in _HOMES:
        raise AttributeError(f"module 'medssl' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
