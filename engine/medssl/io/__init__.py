"""Files in, volumes out, and back."""

from medssl.io.files import list_series, read_volume, write_volume
from medssl.io.series import SeriesInfo

__all__ = ["SeriesInfo", "list_series", "read_volume", "write_volume"]
