"""What a NIfTI header says that ITK passes over in silence."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import InputError

_HEADER_BYTES = 540
_CHUNK = 1 << 20


@dataclass(frozen=True)
class NiftiHeader:
    """The fields that decide whether the rest of the file can be trusted.

    Args:
        shape: voxels per axis in file order, x first.
        spacing: mm of the first three axes.
        bits: bits per voxel.
        offset: byte at which the voxels begin.
        has_orientation: whether the file states where it lies in the patient (qform or sform).
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    bits: int
    offset: int
    has_orientation: bool

    @property
    def expected_bytes(self) -> int:
        """Size of the complete, uncompressed file."""
        count = 1
        for size in self.shape:
            count *= size
        return self.offset + -(-count * self.bits // 8)


def check_nifti(path: Path) -> NiftiHeader:
    """Read the header of a .nii or .nii.gz and make sure that the file is whole.

    ITK fills the missing part of a truncated file with zeros, and takes a spacing of zero for 1 mm,
    both without an error.

    Raises:
        InputError: not a NIfTI file, truncated, or with a spacing of zero.
    """
    packed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if packed else path.open("rb") as handle:
            header = _parse(handle.read(_HEADER_BYTES))
    except (OSError, EOFError, zlib.error):
        header = None
    if header is None:
        raise InputError(f"{path}: not a NIfTI file, or damaged: export the scan again")
    flat = [axis for axis, size in zip("xyz", header.spacing, strict=False) if not size > 0]
    if flat:
        raise InputError(
            f"{path}: the voxel spacing along {', '.join(flat)} is not positive, so sizes in mm are unknown: "
            "correct the header (pixdim)"
        )
    if not (_is_whole_gzip(path, header) if packed else path.stat().st_size >= header.expected_bytes):
        raise InputError(f"{path}: truncated: the file ends before its last voxel; copy it again")
    return header


def _parse(data: bytes) -> NiftiHeader | None:
    """Fields of a NIfTI-1 or NIfTI-2 header in either byte order, None where it is neither."""
    for order in "<>":
        if len(data) >= 348 and struct.unpack(order + "i", data[:4])[0] == 348:
            dim = struct.unpack(order + "8h", data[40:56])
            (bits,) = struct.unpack(order + "h", data[72:74])
            pixdim = struct.unpack(order + "8f", data[76:108])
            offset = int(struct.unpack(order + "f", data[108:112])[0])
            codes = struct.unpack(order + "2h", data[252:256])
            single = data[344:347] == b"n+1"
        elif len(data) >= 540 and struct.unpack(order + "i", data[:4])[0] == 540:
            (bits,) = struct.unpack(order + "h", data[14:16])
            dim = struct.unpack(order + "8q", data[16:80])
            pixdim = struct.unpack(order + "8d", data[104:168])
            (offset,) = struct.unpack(order + "q", data[168:176])
            codes = struct.unpack(order + "2i", data[344:352])
            single = data[4:7] == b"n+2"
        else:
            continue
        count = dim[0]
        if not single or not 1 <= count <= 7 or min(dim[1 : count + 1]) < 1:
            return None
        spacing = tuple(abs(value) for value in pixdim[1 : min(count, 3) + 1])
        return NiftiHeader(dim[1 : count + 1], spacing, bits, offset, any(code > 0 for code in codes))
    return None


def _is_whole_gzip(path: Path, header: NiftiHeader) -> bool:
    """Whether a compressed file holds all its voxels.

    The last four bytes of a gzip member are its uncompressed size: looking there costs nothing. Only
    where they do not fit (truncated, several members, bytes after the voxels) the file is unpacked.
    """
    with path.open("rb") as handle:
        handle.seek(-4, 2)
        if struct.unpack("<I", handle.read(4))[0] == header.expected_bytes % (1 << 32):
            return True
    size = 0
    try:
        with gzip.open(path) as handle:
            while chunk := handle.read(_CHUNK):
                size += len(chunk)
    except (EOFError, OSError, zlib.error):
        return False
    return size >= header.expected_bytes
