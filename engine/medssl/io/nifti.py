"""What a NIfTI header says that ITK passes over in silence."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError

_HEADER_BYTES = 348
_CHUNK = 1 << 22
_FLOATS = (16, 64)
"""NIfTI codes of 32- and 64-bit floats."""
_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32} | {
    **{1024: 64, 1280: 64, 1536: 128, 1792: 128, 2048: 256, 2304: 32}
}
"""Bits per voxel of each NIfTI data type."""


@dataclass(frozen=True)
class NiftiHeader:
    """The fields that decide whether the rest of the file can be trusted.

    Args:
        shape: voxels per axis in file order, x first.
        spacing: mm of the first three axes.
        dtype: numpy type of a stored number where it is a float, otherwise None.
        bits: bits per voxel.
        offset: byte at which the voxels begin.
        has_orientation: whether the file states where it lies in the patient (qform or sform).
        matrix_spacing: mm of the axes by the sform; empty without one.
        placement: rotation and offset of the qform; empty where the sform decides.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    dtype: np.dtype[Any] | None
    bits: int
    offset: int
    has_orientation: bool
    matrix_spacing: tuple[float, ...]
    placement: tuple[float, ...]

    @property
    def notes(self) -> list[str]:
        """What a user must be told of this header."""
        found = []
        if not self.has_orientation:
            found.append("the file states no orientation: left and right may be swapped")
        if not all(map(math.isfinite, self.placement)):
            found.append(
                "the header does not say where the scan lies (qform: not a number): 0 was taken, so left and "
                "right and positions in mm may be wrong"
            )
        return found + ([self._contradiction] if self._contradiction else [])

    @property
    def _contradiction(self) -> str | None:
        """What to tell where the two spacings of the header differ by more than a hundredth."""
        pairs = list(zip(self.spacing, self.matrix_spacing, strict=False))
        if all(math.isclose(stated, other, rel_tol=1e-2) for stated, other in pairs):
            return None
        stated, other = (
            " x ".join(f"{value:.4g}" for value in values) for values in zip(*pairs, strict=True)
        )
        return (
            f"the header contradicts itself: voxels of {stated} mm (pixdim) or of {other} mm (sform). The "
            "first was taken: sizes and places may be wrong"
        )

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
        InputError: not a NIfTI-1 file, truncated, with a header that contradicts itself, or with a spacing
            of zero.
    """
    packed = path.name.lower().endswith(".gz")
    try:
        with _opened(path) as handle:
            data = handle.read(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        data = b""
    try:
        header = _parse(data)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    flat = [axis for axis, size in zip("xyz", header.spacing, strict=False) if not 0 < size < math.inf]
    if flat:
        raise InputError(
            f"{path}: the voxel spacing along {', '.join(flat)} is no length, so sizes in mm are unknown: "
            "correct the header (pixdim)"
        )
    if not (_is_whole_gzip(path, header) if packed else path.stat().st_size >= header.expected_bytes):
        raise InputError(f"{path}: truncated: the file ends before its last voxel; copy it again")
    return header


def holes_of(path: Path, header: NiftiHeader) -> NDArray[np.bool_] | None:
    """Where a float file holds NaN or infinity; None where it nowhere does.

    nifticlib turns such voxels into 0 without a word, and 0 HU is water.

    Returns:
        (N, z, y, x) or (N, y, x), N being the product of the axes beyond the third.
    """
    if header.dtype is None:
        return None
    found = []
    with _opened(path) as handle:
        handle.seek(header.offset)
        left = header.expected_bytes - header.offset
        while left > 0 and (chunk := handle.read(min(_CHUNK, left))):
            left -= len(chunk)
            found.append(~np.isfinite(np.frombuffer(chunk, header.dtype)))
    holes = np.concatenate(found)
    return holes.reshape(-1, *header.shape[2::-1]) if holes.any() else None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The uncompressed content of a file."""
    with path.open("rb") as file:
        if not path.name.lower().endswith(".gz"):
            yield file
            return
        with gzip.open(file) as unpacked:
            yield unpacked  # type: ignore[misc]  # GzipFile is an IO[bytes] in all but name


def _parse(data: bytes) -> NiftiHeader:
    """Fields of a NIfTI-1 header in either byte order.

    Raises:
        ValueError: another kind of file, or values that no NIfTI file has; the text says which.
    """
    order = next((order for order in "<>" if struct.unpack(order + "i", data[:4].ljust(4))[0] == 348), "")
    if data[4:7] in (b"n+2", b"ni2"):
        raise ValueError("is NIfTI-2, which is not read: convert it to NIfTI-1, for example with nibabel")
    if len(data) < _HEADER_BYTES or not order or data[344:347] != b"n+1":
        raise ValueError("not a NIfTI file, or damaged: export the scan again")
    dim = struct.unpack(order + "8h", data[40:56])
    code, bits = struct.unpack(order + "2h", data[70:74])
    pixdim = struct.unpack(order + "8f", data[76:108])
    (offset,) = struct.unpack(order + "f", data[108:112])
    codes = struct.unpack(order + "2h", data[252:256])
    placement = struct.unpack(order + "6f", data[256:280]) if codes[0] > 0 >= codes[1] else ()
    matrix = np.frombuffer(data, order + "f4", 12, 280).reshape(3, 4)[:, : min(dim[0], 3)].astype(float)
    count = dim[0]
    if not 1 <= count <= 7 or min(dim[1 : count + 1]) < 1:
        raise ValueError("not a NIfTI file, or damaged: export the scan again")
    if bits < 1 or bits != _BITS.get(code, bits):
        raise ValueError(
            f"the header is damaged: {bits} bits per voxel do not fit data type {code} (bitpix): "
            "export the scan again"
        )
    if not math.isfinite(offset):
        raise ValueError(
            f"the header is damaged: it does not say where the voxels begin (vox_offset {offset}): "
            "export the scan again"
        )
    spacing = tuple(abs(value) for value in pixdim[1 : min(count, 3) + 1])
    dtype = np.dtype(f"{order}f{bits // 8}") if code in _FLOATS else None
    start = max(int(offset), _HEADER_BYTES)  # as nifticlib takes it
    of_matrix = tuple(float(size) for size in np.linalg.norm(matrix, axis=0)) if codes[1] > 0 else ()
    oriented = max(codes) > 0
    return NiftiHeader(dim[1 : count + 1], spacing, dtype, bits, start, oriented, of_matrix, placement)


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
