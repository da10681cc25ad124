"""Volumes as chunks in one flat file, so that a crop touches only the chunks it lies in.

Chunks follow each other in array order and are cut off at the upper borders, without padding: the file
has exactly as many voxels as the volume, and the position of a chunk needs no table.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


def chunk_shape(shape: Shape) -> Shape:
    """The chunk for a volume: 64 voxels per axis, or 256 within one slice."""
    return (1, 256, 256) if shape[0] == 1 else (64, 64, 64)


def to_chunks(array: NDArray[np.generic], chunk: Shape) -> Iterator[NDArray[np.generic]]:
    """The chunks of ``array`` (*S), each contiguous, in file order."""
    for start in product(*(range(0, n, c) for n, c in zip(array.shape, chunk, strict=True))):
        yield np.ascontiguousarray(array[tuple(slice(s, s + c) for s, c in zip(start, chunk, strict=True))])


def read_box(
    flat: NDArray[np.generic], shape: Shape, chunk: Shape, start: Shape, size: Shape
) -> NDArray[np.generic]:
    """Copy a box out of a chunked volume.

    Args:
        flat: (prod(shape),) voxels in chunk order, usually memory-mapped.
        shape: voxels of the volume per axis.
        chunk: shape of a chunk away from the upper border.
        start: first voxel of the box, inside the volume.
        size: voxels of the box per axis; the box lies inside the volume.

    Returns:
        Array of shape ``size``.

    Raises:
        ValueError: the box sticks out of the volume.
    """
    if any(a < 0 or n < 1 or a + n > s for a, n, s in zip(start, size, shape, strict=True)):
        raise ValueError(f"box at {start} of {size} voxels sticks out of the volume {shape}")
    box = np.empty(size, flat.dtype)
    pieces = [list(_pieces(a, n, c, s)) for a, n, c, s in zip(start, size, chunk, shape, strict=True)]
    _, height, width = shape
    for z0, dz, z_in, z_out in pieces[0]:
        for y0, dy, y_in, y_out in pieces[1]:
            row = z0 * height * width + dz * y0 * width
            for x0, dx, x_in, x_out in pieces[2]:
                first = row + dz * dy * x0
                block = flat[first : first + dz * dy * dx].reshape(dz, dy, dx)
                box[z_out, y_out, x_out] = block[z_in, y_in, x_in]
    return box


def _pieces(start: int, size: int, chunk: int, limit: int) -> Iterator[tuple[int, int, slice, slice]]:
    """Per chunk that [start, start + size) touches: origin, length, the part in it, the part in the box."""
    for origin in range(start - start % chunk, start + size, chunk):
        low, high = max(start, origin), min(start + size, origin + chunk)
        inside = slice(low - origin, high - origin)
        yield origin, min(chunk, limit - origin), inside, slice(low - start, high - start)
