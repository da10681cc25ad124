from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medssl.transforms.spatial import Orthogonal, apply, draw_orthogonal, undo


@pytest.mark.parametrize(("spatial_dims", "count"), [(2, 8), (3, 48)])
def test_all_symmetries_are_drawn_equally_often(generator, spatial_dims, count):
    ops = draw_orthogonal(4800, spatial_dims, generator)
    _, counts = torch.cat([ops.permutation, ops.flip.long()], dim=1).unique(dim=0, return_counts=True)
    assert len(counts) == count
    assert counts.min() > 0.6 * 4800 / count


@pytest.mark.parametrize(("spatial_dims", "count"), [(2, 4), (3, 24)])
def test_without_mirror_only_rotations_are_drawn(generator, spatial_dims, count):
    ops = draw_orthogonal(1000, spatial_dims, generator, mirror=False)
    rows = torch.cat([ops.permutation, ops.flip.long()], dim=1).unique(dim=0)
    assert len(rows) == count
    matrices = torch.nn.functional.one_hot(ops.permutation).double() * (1 - 2.0 * ops.flip[..., None])
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(1000).double())


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("mirror", [True, False])
def test_undo_is_exact(generator, spatial_dims, rotate, mirror):
    x = torch.rand(12, 2, *(7,) * spatial_dims, generator=generator)
    ops = draw_orthogonal(12, spatial_dims, generator, rotate=rotate, mirror=mirror)
    moved = apply(x, ops)
    assert torch.equal(undo(moved, ops), x)
    assert torch.equal(moved, x) == (not rotate and not mirror)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_cells_of_any_stride_correspond(generator, spatial_dims, stride):
    pool = functional.avg_pool2d if spatial_dims == 2 else functional.avg_pool3d
    x = torch.rand(10, 3, *(8,) * spatial_dims, generator=generator)
    ops = draw_orthogonal(10, spatial_dims, generator)
    torch.testing.assert_close(undo(pool(apply(x, ops), stride), ops), pool(x, stride))


def test_known_rotation():
    x = torch.tensor([[1, 2], [3, 4]])[None, None]
    turned = apply(x, Orthogonal(torch.tensor([[1, 0]]), torch.tensor([[True, False]])))
    assert turned[0, 0].tolist() == [[2, 4], [1, 3]]
    assert torch.equal(turned[0, 0], torch.rot90(x[0, 0]))


def test_probability_zero_is_the_identity(generator):
    x = torch.rand(5, 1, 4, 4, 4, generator=generator)
    assert torch.equal(apply(x, draw_orthogonal(5, 3, generator, p=0.0)), x)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("axes", [(-1,), (0,), (0, -1)])
def test_only_named_axes_are_mirrored(generator, spatial_dims, axes):
    drawn = draw_orthogonal(4000, spatial_dims, generator, rotate=False, axes=axes).flip.float().mean(dim=0)
    expected = torch.zeros(spatial_dims)
    expected[list(axes)] = 0.5
    torch.testing.assert_close(drawn, expected, atol=0.03, rtol=0)
    with pytest.raises(ValueError, match="the image has"):
        draw_orthogonal(1, spatial_dims, generator, rotate=False, axes=(spatial_dims,))


def test_flips_work_on_any_shape_and_swaps_are_refused(generator):
    x = torch.rand(6, 1, 5, 8, 3, generator=generator)
    ops = draw_orthogonal(6, 3, generator, rotate=False)
    assert torch.equal(undo(apply(x, ops), ops), x)
    with pytest.raises(ValueError, match="rotate=False"):
        apply(x, draw_orthogonal(6, 3, generator))
    with pytest.raises(ValueError, match="operations are for"):
        apply(x[:4], ops)


def test_gradient_comes_back_to_its_place(generator):
    x = torch.rand(4, 1, 4, 4, generator=generator, requires_grad=True)
    weight = torch.rand(4, 1, 4, 4, generator=generator)
    ops = draw_orthogonal(4, 2, generator)
    (undo(apply(x, ops) * apply(weight, ops), ops)).sum().backward()
    torch.testing.assert_close(x.grad, weight)


def test_same_seed_same_operations():
    first, second = (draw_orthogonal(9, 3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.permutation, second.permutation)
    assert torch.equal(first.flip, second.flip)
