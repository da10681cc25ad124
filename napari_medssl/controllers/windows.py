"""Window presets for CT and the grey range for everything else."""

from __future__ import annotations

from medssl.volume import Volume
from medssl.volume.normalize import Normalizer

PRESETS: dict[str, tuple[float, float]] = {
    "Soft tissue": (400, 40),
    "Lung": (1500, -600),
    "Bone": (1800, 400),
    "Brain": (80, 40),
    "Liver": (150, 60),
    "Mediastinum": (350, 50),
    "Whole range": (3000, 500),
}
"""Window width and level in Hounsfield units."""


def preset_limits(name: str) -> tuple[float, float]:
    """Darkest and brightest value of a preset, HU."""
    width, level = PRESETS[name]
    return level - width / 2, level + width / 2


def first_limits(volume: Volume) -> tuple[float, float]:
    """The window a volume opens with: soft tissue for CT, robust percentiles otherwise."""
    if volume.modality == "CT":
        return preset_limits("Soft tissue")
    knots = Normalizer.fit(volume.array, volume.modality).knots
    return knots[0][0], knots[-1][0]
