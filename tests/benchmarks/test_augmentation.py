"""Views of a training batch on one core, against the plain way to compute them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from medssl.transforms.corruption import shuffle_sources
from medssl.transforms.separable import gaussian_smooth

pytestmark = pytest.mark.benchmark


@pytest.fixture(autouse=True)
def one_core():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_gaussian_low_passes_of_the_energy_bands(figures, seconds):
    x = torch.rand(16, 1, 48, 48, 48)

    def ours() -> None:
        for sigma in (1.0, 2.0, 4.0):
            gaussian_smooth(x, sigma)

    def plain() -> None:
        for sigma in (1.0, 2.0, 4.0):
            ndimage.gaussian_filter(x.numpy(), sigma, axes=(2, 3, 4))

    ours_s, plain_s = seconds(ours, plain, runs=5)
    figures.at_most(
        "energy bands, 16 x 48^3: low-passes", ours_s / plain_s, 0.6, "x", reference="scipy", runs=5
    )


def test_local_shuffling(figures, seconds):
    """Ten thousand windows in a 64 x 64 x 32 cube, against one permutation per window."""
    shape, rng = (64, 64, 32), np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    image = rng.random(shape)

    def plain() -> None:
        out = image.copy()
        for _ in range(10_000):
            size = [rng.integers(1, max(s // 10, 1) + 1) for s in shape]
            start = [rng.integers(0, s - k + 1) for s, k in zip(shape, size, strict=True)]
            window = tuple(slice(a, a + k) for a, k in zip(start, size, strict=True))
            out[window] = rng.permutation(image[window].ravel()).reshape(size)

    ours_s, plain_s = seconds(lambda: shuffle_sources(shape, generator), plain, runs=5)
    figures.at_most("local shuffling, 64 x 64 x 32", ours_s / plain_s, 0.5, "x", reference="loop", runs=5)
