from __future__ import annotations

import numpy as np
import pytest

from medssl.data.chunks import read_box, to_chunks


@pytest.mark.parametrize("shape", [(9, 7, 11), (1, 13, 5), (4, 4, 4), (3, 2, 1)])
def test_any_box_equals_slicing(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 1000, shape).astype(np.int16)
    chunk = (4, 4, 4)
    flat = np.concatenate([part.ravel() for part in to_chunks(array, chunk)])
    assert flat.size == array.size
    for _ in range(50):
        start = tuple(int(rng.integers(0, n)) for n in shape)
        size = tuple(int(rng.integers(1, n - s + 1)) for n, s in zip(shape, start, strict=True))
        expected = array[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))]
        np.testing.assert_array_equal(read_box(flat, shape, chunk, start, size), expected)


@pytest.mark.parametrize(
    ("start", "size"), [((-1, 0, 0), (2, 2, 2)), ((0, 0, 3), (1, 1, 3)), ((0, 0, 0), (0, 1, 1))]
)
def test_a_box_outside_is_refused(start: tuple[int, ...], size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sticks out"):
        read_box(np.zeros(125), (5, 5, 5), (4, 4, 4), start, size)
