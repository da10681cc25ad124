"""Which endings are images, and who in ITK reads them."""

from __future__ import annotations

from pathlib import Path

VOLUMES = {
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
PICTURES = {
    ".png": "PNGImageIO",
    ".jpg": "JPEGImageIO",
    ".jpeg": "JPEGImageIO",
    ".tif": "TIFFImageIO",
    ".tiff": "TIFFImageIO",
}
WRITABLE_PICTURES = (".png", ".tif", ".tiff")
SUFFIXES = (*VOLUMES, *PICTURES)
"""Endings of the image files that can be read."""


def image_suffix(path: Path) -> str:
    """The ending of an image file in lower case, ".nii.gz" as one; empty where it is none of ours."""
    name = path.name.lower()
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), "")


_DICOM_GROUPS = (b"\x02\x00", b"\x08\x00")
"""First bytes of a DICOM data set without the 128-byte preamble, little endian."""


def looks_like_dicom(start: bytes) -> bool:
    """Whether the first 132 bytes of a file are those of DICOM, with or without the preamble."""
    if start[128:] == b"DICM":
        return True
    return len(start) == 132 and start[:2] in _DICOM_GROUPS and start[3] == 0
