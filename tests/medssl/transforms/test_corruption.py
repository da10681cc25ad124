from __future__ import annotations

import random

import pytest
import torch

from medssl.transforms.corruption import (
    bezier_intensity,
    box_mask,
    draw_inner_boxes,
    draw_kept_windows,
    local_shuffle,
    shuffle_sources,
)

SHAPES = pytest.mark.parametrize("shape", [(37, 50), (33, 24, 41)], ids=["plane", "space"])


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, [1, 0.91501, 0.81724, 0.69293, 0.48821, 0.27913, 0.16298, 0.07515, 0]),
        (1, [1, 0.92481, 0.84715, 0.76346, 0.65436, 0.44279, 0.27487, 0.1319, 0]),
        (2, [0, 0.01309, 0.04249, 0.10594, 0.34174, 0.82693, 0.92123, 0.9707, 1]),
        (3, [1, 0.90986, 0.8094, 0.69493, 0.56278, 0.41458, 0.26343, 0.12393, 0]),
    ],
)
def test_published_transform(seed, expected):
    """Values of the published code, whose draws are: gate, x1, y1, x2, y2, gate of the inversion."""
    draw = random.Random(seed)
    _, x1, y1, x2, y2, gate = (draw.random() for _ in range(6))
    x = torch.linspace(0, 1, 9, dtype=torch.float64)
    out = bezier_intensity(x, (x1, y1), (x2, y2), decreasing=gate < 0.5)
    torch.testing.assert_close(out, torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("p1", "p2", "expected"),
    [
        ((0.2, 0.8), (0.9, 0.1), [0, 0.24137, 0.381134, 0.455951, 0.523015, 0.660631, 1]),
        ((0.1, 0.9), (0.3, 0.6), [0, 0.479687, 0.671836, 0.779709, 0.874678, 0.945681, 1]),
    ],
)
def test_analytic_curve(p1, p2, expected):
    x = torch.tensor([0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
    torch.testing.assert_close(bezier_intensity(x, p1, p2), torch.tensor(expected), atol=5e-6, rtol=0)


def test_diagonal_controls_give_the_identity_or_its_mirror(image):
    torch.testing.assert_close(bezier_intensity(image, (0.3, 0.3), (0.8, 0.8)), image, atol=1e-6, rtol=0)
    mirrored = bezier_intensity(image, (0.3, 0.3), (0.3, 0.3), decreasing=True)
    down = torch.linspace(0, 1, 1024)
    along = 3 * 0.3 * ((1 - down) ** 2 * down + (1 - down) * down**2) + down**3
    torch.testing.assert_close(bezier_intensity(along, (0.3, 0.3), (0.3, 0.3), True), along.flip(0))
    assert mirrored.min() >= 0


def test_curves_are_monotone_and_keep_the_ends(generator):
    x = torch.linspace(-0.5, 1.5, 401).expand(64, 1, 401)
    p1, p2 = torch.rand(2, 64, 2, generator=generator)
    down = torch.arange(64) % 2 == 0
    out = bezier_intensity(x, p1, p2, down)
    sign = torch.where(down, -1.0, 1.0)[:, None, None]
    assert (out.diff(dim=-1) * sign >= -1e-6).all()
    torch.testing.assert_close(out[:, 0, 0], down.float())
    torch.testing.assert_close(out[:, 0, -1], 1 - down.float())


@pytest.mark.parametrize(
    ("p1", "p2"), [((0, 1), (0, 1)), ((1, 0), (0, 1)), ((1, 1), (1, 0)), ((0, 0), (1, 1)), ((0, 1), (0, 0))]
)
def test_steep_curves_are_followed(p1, p2):
    u = torch.linspace(0, 1, 4097, dtype=torch.float64)
    x, y = (3 * (1 - u) ** 2 * u * a + 3 * (1 - u) * u**2 * b + u**3 for a, b in zip(p1, p2, strict=True))
    error = (bezier_intensity(x, p1, p2) - y).abs()
    assert error.max() < 0.05  # within one step of the table, where the curve is vertical
    assert error.quantile(0.9) < 1e-4


def test_each_sample_has_its_own_curve(image, generator):
    p1, p2 = torch.rand(2, len(image), 2, generator=generator)
    down = torch.tensor([True, False, False, True])
    together = bezier_intensity(image, p1, p2, down)
    for i in range(len(image)):
        single = bezier_intensity(image[i], p1[i].tolist(), p2[i].tolist(), bool(down[i]))
        torch.testing.assert_close(together[i], single)


@SHAPES
def test_one_window_is_permuted_and_the_rest_untouched(generator, shape):
    voxels = torch.arange(torch.tensor(shape).prod())
    for _ in range(20):
        sources = shuffle_sources(shape, generator, windows=1)[0]
        moved = (sources != voxels).nonzero().squeeze(1)
        assert torch.equal(sources.sort().values, voxels)
        if len(moved):
            corners = torch.stack(torch.unravel_index(moved, shape))
            size = corners.amax(dim=1) - corners.amin(dim=1) + 1
            assert (size <= torch.tensor(shape) // 10).all()


@SHAPES
def test_voxels_stay_within_a_window(generator, shape):
    sources = shuffle_sources(shape, generator)[0]
    here = torch.stack(torch.unravel_index(torch.arange(len(sources)), shape))
    there = torch.stack(torch.unravel_index(sources, shape))
    reach = (here - there).abs().amax(dim=1)
    assert (reach <= torch.tensor(shape) // 10 - 1).all()
    assert (sources != torch.arange(len(sources))).float().mean() > 0.6


def test_window_permutations_are_uniform(generator):
    """A 20-voxel line has windows of 1 or 2: a window of 2 swaps half of the time."""
    sources = shuffle_sources((20,), generator, 1, batch=2000)
    swapped = (sources != torch.arange(20)).any(dim=1)
    assert swapped.float().mean().item() == pytest.approx(0.25, abs=0.04)


def test_samples_of_a_batch_are_shuffled_by_themselves(generator):
    together = shuffle_sources((30, 40), generator, 50, batch=3)
    assert together.shape == (3, 1200)
    assert together.min() >= 0
    assert together.max() < 1200
    assert not torch.equal(together[0], together[1])
    here, there = (torch.stack(torch.unravel_index(v, (30, 40))) for v in (torch.arange(1200), together))
    assert (here[:, None] - there).abs().flatten(1).amax(dim=1).tolist() == [2, 3]


def test_shuffling_of_the_published_size_changes_as_much(generator):
    """64 x 64 x 32 ramp, 10,000 windows: the published code changes 78.9 % and 78.4 % (two seeds)."""
    shape = (64, 64, 32)
    sources = shuffle_sources(shape, generator)[0]
    assert (sources != torch.arange(len(sources))).float().mean().item() == pytest.approx(0.787, abs=0.01)
    assert sources.unique().numel() / len(sources) == pytest.approx(0.786, abs=0.02)


def test_constant_image_survives_shuffling(generator):
    flat = torch.full((2, 3, 30, 30), 0.4)
    sources = shuffle_sources((30, 30), generator, batch=2)
    assert torch.equal(local_shuffle(flat, sources), flat)


@SHAPES
def test_inner_boxes_keep_size_number_and_margin(generator, shape):
    boxes = draw_inner_boxes(300, shape, generator)
    extent = torch.tensor(shape)
    size = boxes[:, :, 1] - boxes[:, :, 0]
    used = (size > 0).all(dim=-1)
    assert (size[used] >= extent // 6).all()
    assert (size[used] <= extent // 3).all()
    assert (boxes[:, :, 0] >= 3).all()
    assert (boxes[:, :, 1] <= extent - 3).all()
    rate = used.float().mean(dim=0)
    torch.testing.assert_close(rate, 0.95 ** torch.arange(1.0, 6), atol=0.06, rtol=0)


@SHAPES
def test_kept_windows(generator, shape):
    windows = draw_kept_windows(300, shape, generator)
    extent = torch.tensor(shape)
    size = windows[:, 0, 1] - windows[:, 0, 0]
    assert (size >= extent - 4 * extent // 7).all()
    assert (size <= extent - 3 * extent // 7).all()
    kept = box_mask(windows, shape)
    for axis in range(2, kept.ndim):
        assert not kept.narrow(axis, 0, 3).any()
        assert not kept.narrow(axis, kept.shape[axis] - 3, 3).any()


def test_painted_fractions_are_the_published_ones(generator):
    """Means over 200 draws of the published code at 64 x 64 x 32: 5.3 % painted in, 68.9 % painted out."""
    shape = (64, 64, 32)
    inner = box_mask(draw_inner_boxes(200, shape, generator), shape).float().mean().item()
    outer = 1 - box_mask(draw_kept_windows(200, shape, generator), shape).float().mean().item()
    assert inner == pytest.approx(0.053, abs=0.006)
    assert outer == pytest.approx(0.689, abs=0.015)


def test_box_mask_is_the_union():
    boxes = torch.tensor([[[[0, 1], [2, 3]], [[1, 2], [4, 3]], [[1, 1], [1, 1]]]])
    expected = torch.tensor([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0]]).bool()
    assert torch.equal(box_mask(boxes, (4, 4))[0, 0], expected)


@SHAPES
def test_small_images_are_possible(generator, shape):
    tiny = (5,) * len(shape)
    assert shuffle_sources(tiny, generator).shape == (1, 5 ** len(shape))
    assert box_mask(draw_kept_windows(4, tiny, generator), tiny).any()
    assert (draw_inner_boxes(4, tiny, generator) <= 5).all()
