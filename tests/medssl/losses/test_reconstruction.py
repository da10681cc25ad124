from __future__ import annotations

import pytest
import torch

from medssl.losses.reconstruction import masked_patch_loss, patchify

GRIDS = pytest.mark.parametrize(
    ("shape", "grid"), [((6, 10), (3, 2)), ((6, 4, 10), (3, 2, 2))], ids=["plane", "space"]
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def unpatched(values, grid, size):
    """Patch values (B, L, N) with one channel back to an image."""
    steps = [s // g for s, g in zip(size, grid, strict=True)]
    x = values.reshape(len(values), *grid, *steps)
    n = len(grid)
    return x.permute(0, *(k for d in range(n) for k in (1 + d, 1 + n + d))).reshape(len(values), 1, *size)


def test_patch_order_is_row_major_with_channels_last():
    x = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    patches = patchify(x, (2, 2))
    assert patches.shape == (1, 4, 12)
    assert patches[0, 1].tolist() == [3, 27, 4, 28, 5, 29, 9, 33, 10, 34, 11, 35]


@GRIDS
def test_patches_of_one_channel_go_back(generator, shape, grid):
    x = torch.rand(2, 1, *shape, generator=generator)
    assert torch.equal(unpatched(patchify(x, grid), grid, shape), x)


@GRIDS
def test_zero_for_the_normalised_target(generator, shape, grid):
    target = torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64)
    visible = torch.zeros(2, 1, *grid, dtype=torch.bool)
    patches = patchify(target, grid)
    normal = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    assert masked_patch_loss(unpatched(normal, grid, shape), target, visible).item() == pytest.approx(
        0, abs=1e-20
    )
    size = patches.shape[-1]
    blank = masked_patch_loss(torch.zeros_like(target), target, visible)
    assert blank.item() == pytest.approx((size - 1) / size, rel=1e-4)


@GRIDS
def test_plain_error_over_masked_voxels(generator, shape, grid):
    prediction, target = torch.rand(2, 2, 3, *shape, generator=generator)
    visible = torch.rand(2, 1, *grid, generator=generator) < 0.5
    mask = visible
    for axis, (s, g) in enumerate(zip(shape, grid, strict=True), start=2):
        mask = mask.repeat_interleave(s // g, dim=axis)
    error = (prediction - target).square()
    expected = error[(~mask).expand_as(error)].mean()
    torch.testing.assert_close(masked_patch_loss(prediction, target, visible, normalise=False), expected)


@GRIDS
def test_visible_patches_get_no_gradient(generator, shape, grid):
    prediction = torch.rand(2, 1, *shape, generator=generator, requires_grad=True)
    visible = torch.rand(2, 1, *grid, generator=generator) < 0.5
    masked_patch_loss(prediction, torch.rand(2, 1, *shape, generator=generator), visible).backward()
    assert prediction.grad is not None
    moved = (patchify(prediction.grad, grid) != 0).any(dim=-1)
    assert torch.equal(moved, ~visible.flatten(1))


def test_flat_patches_and_nothing_masked_stay_finite():
    flat = torch.full((1, 1, 4, 4), 0.7)
    hidden = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    assert masked_patch_loss(torch.zeros_like(flat), flat, hidden).item() == pytest.approx(0, abs=1e-6)
    assert masked_patch_loss(torch.ones_like(flat), flat, ~hidden).item() == 0


def test_misfitting_grid_is_refused():
    x = torch.rand(1, 1, 6, 6)
    with pytest.raises(ValueError, match="grid"):
        masked_patch_loss(x, x, torch.ones(1, 1, 4, 4, dtype=torch.bool))
