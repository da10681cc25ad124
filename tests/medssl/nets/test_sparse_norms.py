from __future__ import annotations

import pytest
import torch
from monai.networks.layers.factories import Norm
from torch import nn

from medssl.nets.sparse_layers import VisibleCells, hide, upsample_mask
from medssl.nets.sparse_norms import batch_norm, group_norm


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param


@pytest.fixture
def case(spatial_dims):
    """A sparse map far from 0, its mask, and the seen positions of each sample as rows (N_b, C)."""
    torch.manual_seed(0)
    visible = torch.rand(3, 1, *(3,) * spatial_dims) < 0.4
    visible[:, :, 0] = True
    cells = VisibleCells(visible)
    x = hide(5 + 2 * torch.randn(3, 4, *(6,) * spatial_dims, dtype=torch.float64), cells)
    seen = upsample_mask(visible, x.shape[2:])[:, 0]
    return x, cells, [sample.movedim(0, -1)[where] for sample, where in zip(x, seen, strict=True)]


def rows_of(x, cells):
    seen = cells.mask(x).bool()[:, 0]
    return [sample.movedim(0, -1)[where] for sample, where in zip(x, seen, strict=True)]


def randomised(norm):
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_is_that_of_the_seen_rows(case, spatial_dims, momentum):
    x, cells, rows = case
    ours = Norm[Norm.BATCH, spatial_dims](4, momentum=momentum).double()
    randomised(ours)
    theirs = nn.BatchNorm1d(4, momentum=momentum).double()
    theirs.load_state_dict(ours.state_dict())
    for training in (True, True, False):
        ours.train(training)
        theirs.train(training)
        a, b = x.clone().requires_grad_(), torch.cat(rows).requires_grad_()
        result, expected = batch_norm(ours, a, cells), theirs(b)
        torch.testing.assert_close(torch.cat(rows_of(result, cells)), expected)
        assert (hide(result, cells) == result).all()
        result.pow(3).sum().backward()
        expected.pow(3).sum().backward()
        torch.testing.assert_close(torch.cat(rows_of(a.grad, cells)), b.grad)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_batch_norm_gives_mean_0_and_variance_1(case, spatial_dims):
    x, cells, _ = case
    norm = Norm[Norm.BATCH, spatial_dims](4, affine=False, eps=0).double()
    result = torch.cat(rows_of(batch_norm(norm, x, cells), cells))
    torch.testing.assert_close(result.mean(dim=0), torch.zeros(4).double())
    torch.testing.assert_close(result.var(dim=0, correction=0), torch.ones(4).double())


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm_is_that_of_each_samples_rows(case, groups):
    x, cells, rows = case
    norm = randomised(nn.GroupNorm(groups, 4).double())
    result = rows_of(group_norm(norm, x, cells), cells)
    for ours, sample in zip(result, rows, strict=True):
        torch.testing.assert_close(ours, norm(sample.T[None])[0].T)


def test_instance_norm_is_that_of_each_samples_rows(case, spatial_dims):
    x, cells, rows = case
    norm = randomised(Norm[Norm.INSTANCE, spatial_dims](4, affine=True, track_running_stats=True).double())
    line = nn.InstanceNorm1d(4, affine=True, track_running_stats=True).double()
    line.load_state_dict(norm.state_dict())
    result = rows_of(group_norm(norm, x, cells), cells)
    means, variances = [], []
    for ours, sample in zip(result, rows, strict=True):
        torch.testing.assert_close(ours, line(sample.T[None])[0].T)
        means.append(sample.mean(dim=0))
        variances.append(sample.var(dim=0))
    torch.testing.assert_close(norm.running_mean, 0.1 * torch.stack(means).mean(dim=0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * torch.stack(variances).mean(dim=0))
    fixed = rows_of(group_norm(norm.eval(), x, cells), cells)
    line.load_state_dict(norm.state_dict())
    torch.testing.assert_close(fixed[0], line.eval()(rows[0].T[None])[0].T)


def test_a_sample_without_a_seen_cell_counts_for_nothing(case, spatial_dims):
    x, cells, rows = case
    kept = cells.cells.clone()
    kept[1] = False
    cells = VisibleCells(kept)
    ours, theirs = Norm[Norm.BATCH, spatial_dims](4).double(), nn.BatchNorm1d(4).double()
    result = batch_norm(ours, hide(x, cells), cells)
    expected = theirs(torch.cat([rows[0], rows[2]]))
    torch.testing.assert_close(torch.cat(rows_of(result, cells)), expected)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_a_sample_without_a_seen_cell_gives_zeros():
    cells = VisibleCells(torch.zeros(2, 1, 2, 2, dtype=torch.bool))
    x = torch.zeros(2, 4, 4, 4, requires_grad=True)
    for result in (group_norm(nn.GroupNorm(2, 4), x, cells), batch_norm(nn.BatchNorm2d(4), x, cells)):
        assert (result == 0).all()
        result.sum().backward()
        assert x.grad.isfinite().all()


def test_half_precision_is_summed_in_full(spatial_dims):
    cells = VisibleCells(torch.ones(1, 1, *(2,) * spatial_dims, dtype=torch.bool))
    x = (100 + torch.randn(1, 2, *(8,) * spatial_dims)).bfloat16()
    norm = Norm[Norm.BATCH, spatial_dims](2)
    result = batch_norm(norm, x, cells)
    assert result.dtype == torch.bfloat16
    expected = Norm[Norm.BATCH, spatial_dims](2)(x.float())
    torch.testing.assert_close(result.float(), expected, rtol=1e-2, atol=1e-2)
