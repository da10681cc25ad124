"""Colours for clusters: the same in the list and in the image."""

from __future__ import annotations

import colorsys

_GOLDEN_ANGLE = 0.61803398875
_SHADES = ((0.62, 0.95), (0.85, 0.80), (0.45, 0.75))  # saturation, value


def cluster_colour(number: int) -> tuple[int, int, int]:
    """Red, green, blue (0 to 255) of cluster 1, 2, ...: neighbours in number differ most in hue."""
    saturation, value = _SHADES[number % len(_SHADES)]
    red, green, blue = colorsys.hsv_to_rgb((0.03 + number * _GOLDEN_ANGLE) % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
