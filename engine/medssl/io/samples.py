"""The sample scan: an average brain that comes inside the package nilearn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from medssl.errors import MissingDependencyError

TISSUES = {"grey matter": "gm", "white matter": "wm"}
"""Tissues with a probability map beside the template, and their names in its file."""


def brain_template() -> Path:
    """The MNI152 T1 template: the average of 152 healthy brains, (189, 233, 197) voxels of 1 mm.

    Raises:
        MissingDependencyError: nilearn is not installed.
    """
    return _file("t1")


def tissue_map(tissue: str) -> Path:
    """Probability of a tissue of `TISSUES` (0 to 255) on the grid of `brain_template`.

    Raises:
        MissingDependencyError: nilearn is not installed.
    """
    return _file(TISSUES[tissue])


def _file(contrast: str) -> Path:
    found = find_spec("nilearn")  # without importing it: that takes seconds
    if found is None or found.origin is None:
        raise MissingDependencyError("nilearn", "demo", "the sample scan")
    folder = Path(found.origin).parent / "datasets" / "data"
    return folder / f"mni_icbm152_{contrast}_tal_nlin_sym_09a_converted.nii.gz"
