"""Images in physical space: numpy only."""

from medssl.volume.geometry import Geometry
from medssl.volume.volume import Volume

__all__ = ["Geometry", "Volume"]
