"""Whether a JPEG is whole; libjpeg fills the missing part with grey and says so on the terminal."""

from __future__ import annotations

from pathlib import Path

_START, _END = b"\xff\xd8", 0xD9
_ALONE = (0x00, 0x01, *range(0xD0, 0xD8))
"""Second bytes after 0xFF that belong to the picture data: a stuffed byte, TEM and restarts."""


def is_truncated_jpeg(path: Path) -> bool:
    """Whether the file begins like a JPEG and has no end marker behind its pictures.

    Bytes behind the end marker (padding, a second picture) do no harm, and an end marker within a
    thumbnail is not taken for that of the picture.
    """
    data = path.read_bytes()
    if not data.startswith(_START):
        return False
    place = len(_START)
    while (place := data.find(b"\xff", place)) >= 0 and place + 1 < len(data):
        kind = data[place + 1]
        if kind == _END:
            return False
        if kind == 0xFF:  # fill byte
            place += 1
        elif kind in _ALONE:
            place += 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return True
