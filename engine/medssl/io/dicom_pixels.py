"""Decoded, rescaled pixels of DICOM frames."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from medssl.errors import InputError
from medssl.io.dicom_headers import UNREADABLE, Frame, NativePixels
from medssl.io.values import compact, finite, grey

_INT16 = np.iinfo(np.int16)


def read_pixels(frames: Sequence[Frame]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The pixels of frames of one size, each with its own rescale slope and intercept.

    Returns:
        (n, rows, columns), int16 where that keeps every value, and notes on what was changed.

    Raises:
        InputError: a file is truncated, damaged or compressed in an unknown way.
    """
    pictures = _read_jpeg(frames)
    if pictures is not None:
        return compact(pictures), ()
    notes: list[str] = []
    whole = all(frame.slope == 1 and frame.intercept == int(frame.intercept) for frame in frames)
    shape = (len(frames), frames[0].rows, frames[0].columns)
    result: NDArray[Any] = np.empty(shape, dtype=np.int16 if whole else np.float32)
    path, header = frames[0].path, Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index, frame in enumerate(frames):
            if frame.native is not None:
                result = _put(result, index, _read_native(frame, frame.native), frame)
                continue
            try:
                if not header or frame.path != path:
                    path, header = frame.path, pydicom.dcmread(frame.path, force=True)
                picture = pixel_array(header, index=frame.index)
                if header.PhotometricInterpretation == "PALETTE COLOR":
                    picture = apply_color_lut(picture, header)
            except UNREADABLE as error:
                raise _damaged(frame) from error
            if picture.ndim == 3:
                picture = np.rint(grey(picture)).astype(np.int32)
                _note(notes, "colour pictures: their brightness is used, values are not measurements")
            if header.PhotometricInterpretation == "MONOCHROME1":
                picture = _inverted(picture, header)
                _note(notes, "the files store bright as dark (MONOCHROME1): values were inverted")
            result = _put(result, index, picture, frame)
    result, note = finite(result)
    if note:
        _note(notes, note)
    return compact(result), tuple(notes)


def _read_native(frame: Frame, native: NativePixels) -> NDArray[Any]:
    count = frame.rows * frame.columns
    start = native.offset + frame.index * count * native.dtype.itemsize
    picture = np.fromfile(frame.path, native.dtype, count, offset=start)
    if picture.size < count:
        raise _damaged(frame)
    if native.unused_bits:
        # Shifting up and down again clears what old scanners kept above the stored bits, and keeps the sign.
        picture = picture.astype(native.dtype.newbyteorder("="), copy=False)
        picture <<= native.unused_bits
        picture >>= native.unused_bits
    return picture.reshape(frame.rows, frame.columns)


def _read_jpeg(frames: Sequence[Frame]) -> NDArray[Any] | None:
    """All pictures by ITK where it decodes and rescales them alike, else None.

    ITK takes a half to a third of the time of pydicom's decoders for the JPEG family.
    """
    if frames[0].itk_type is None or len({frame.itk_type for frame in frames}) > 1:
        return None
    from medssl.io.sitk import read_dicom_pictures  # noqa: PLC0415 (loads SimpleITK; raw pixels need none)

    pictures = read_dicom_pictures([frame.path for frame in frames])
    expected = (len(frames), frames[0].rows, frames[0].columns)
    return pictures if pictures is not None and pictures.shape == expected else None


def _damaged(frame: Frame) -> InputError:
    return InputError(f"{frame.path}: truncated or damaged, its pixels cannot be decoded: copy it again")


def _put(result: NDArray[Any], index: int, picture: NDArray[Any], frame: Frame) -> NDArray[Any]:
    """Store one rescaled picture; the array grows to a wider type when a value does not fit."""
    if result.dtype.kind == "i" and picture.dtype.kind == "f":
        result = result.astype(np.float32)
    if result.dtype == np.float32:
        np.multiply(picture, np.float32(frame.slope), out=result[index], casting="unsafe")
        result[index] += np.float32(frame.intercept)
        return result
    intercept = int(frame.intercept)
    low, high = int(picture.min()) + intercept, int(picture.max()) + intercept
    if result.dtype == np.int16 and not (_INT16.min <= low and high <= _INT16.max):
        result = result.astype(np.int32)
    np.add(picture, intercept, out=result[index], dtype=np.int32, casting="unsafe")
    return result


def _inverted(picture: NDArray[Any], header: Dataset) -> NDArray[Any]:
    bits = int(header.get("BitsStored", 16))
    highest = 2 ** (bits - 1) - 1 if header.get("PixelRepresentation", 0) else 2**bits - 1
    lowest = -(2 ** (bits - 1)) if header.get("PixelRepresentation", 0) else 0
    inverted: NDArray[Any] = (highest + lowest) - picture.astype(np.int32)
    return inverted


def _note(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)
