"""The one door to FAISS."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from medssl.errors import MissingDependencyError


def faiss_library() -> Any:
    """The module `faiss`, from the CPU or the GPU build, whichever is installed.

    Raises:
        MissingDependencyError: neither is; names the extra.
    """
    try:
        return import_module("faiss")
    except ImportError as error:
        raise MissingDependencyError("faiss", "cpu", "searching and clustering") from error


def gpu_count(faiss: Any) -> int:
    """Devices that this build can search on; 0 for the CPU build."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0
