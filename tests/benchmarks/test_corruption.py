"""The corruptions of Models Genesis, against the published recipe in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medssl.transforms.genesis import GenesisCorruption

pytestmark = pytest.mark.benchmark

SHAPE, CUBES = (32, 64, 64), 6  # z, y, x
SHUFFLED = CUBES // 2  # what p = 0.5 gives on average: most of the time goes there


@pytest.fixture
def two_cores():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def published(cube, rng, *, is_shuffled):
    """One cube through flip, local shuffling, Bezier curve and painting, step by step as described."""
    for _ in range(3):
        if rng.random() >= 0.4:
            break
        cube = np.flip(cube, rng.integers(3))
    out = cube.copy()
    if is_shuffled:
        for _ in range(10_000):
            size = [rng.integers(1, n // 10 + 1) for n in SHAPE]
            start = [rng.integers(0, n - k + 1) for n, k in zip(SHAPE, size, strict=True)]
            window = tuple(slice(a, a + k) for a, k in zip(start, size, strict=True))
            values = cube[window].ravel()
            rng.shuffle(values)
            out[window] = values.reshape(size)
    if rng.random() < 0.9:
        t = np.linspace(0, 1, 100_000)
        (x1, y1), (x2, y2) = rng.random((2, 2))
        x, y = (3 * (1 - t) ** 2 * t * a + 3 * (1 - t) * t**2 * b + t**3 for a, b in ((x1, x2), (y1, y2)))
        x.sort()
        if rng.random() >= 0.5:
            y.sort()
        out = np.interp(out, x, y)
    if rng.random() < 0.9:
        out = _painted(out, rng)
    return out, cube


def _painted(image, rng):
    is_inner = rng.random() < 0.2
    out = image.copy() if is_inner else rng.random(SHAPE)
    for number in range(5):
        if number + is_inner > 0 and rng.random() >= 0.95:
            break
        low, high = ([n // 6 for n in SHAPE], [n // 3 for n in SHAPE]) if is_inner else (
            [n - 4 * n // 7 for n in SHAPE], [n - 3 * n // 7 for n in SHAPE]
        )  # fmt: skip
        size = [rng.integers(a, b + 1) for a, b in zip(low, high, strict=True)]
        start = [rng.integers(3, n - k - 2) for n, k in zip(SHAPE, size, strict=True)]
        box = tuple(slice(a, a + k) for a, k in zip(start, size, strict=True))
        out[box] = rng.random(size) if is_inner else image[box]
    return out


def with_half_shuffled(device="cpu"):
    """Parameters of the published probabilities in which half of the cubes are shuffled."""
    for seed in range(100):
        drawn = GenesisCorruption().draw(CUBES, SHAPE, torch.Generator(device).manual_seed(seed))
        if int(drawn.shuffled.sum()) == SHUFFLED:
            return drawn
    raise AssertionError("no such draw")


def cubes():
    return torch.rand(CUBES, 1, *SHAPE, generator=torch.Generator().manual_seed(0))


def recipe(x):
    """The published recipe over a batch; its cubes are float64."""
    rng = np.random.default_rng(0)
    images = x[:, 0].double().cpu().numpy()
    return [published(cube, rng, is_shuffled=i < SHUFFLED) for i, cube in enumerate(images)]


@pytest.mark.usefixtures("two_cores")
def test_six_cubes(figures, seconds):
    x, transform, drawn = cubes(), GenesisCorruption(), with_half_shuffled()
    ours_s, recipe_s = seconds(lambda: transform.apply(x, drawn), lambda: recipe(x), runs=5)
    figures.at_least(
        "Genesis corruptions, 6 x 64 x 64 x 32",
        recipe_s / ours_s,
        5,
        "x",
        reference="published recipe in NumPy",
        runs=5,
    )


@pytest.mark.gpu
def test_six_cubes_on_a_gpu(figures, seconds):
    """What an H200 is held to; the recipe runs on one core beside it."""
    x, transform, drawn = cubes().cuda(), GenesisCorruption(), with_half_shuffled("cuda")
    transform.apply(x, drawn)
    (ours_s,) = seconds(lambda: transform.apply(x, drawn), runs=50, wait=torch.cuda.synchronize)
    (recipe_s,) = seconds(lambda: recipe(x), runs=5)
    figures.at_least(
        "Genesis corruptions on a GPU, 6 x 64 x 64 x 32",
        recipe_s / ours_s,
        200,
        "x",
        reference=f"published recipe in NumPy on one core; {torch.cuda.get_device_name()}",
        runs=50,
    )
