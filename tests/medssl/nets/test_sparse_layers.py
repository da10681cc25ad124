from __future__ import annotations

import pytest
import torch

from medssl.nets.sparse_layers import (
    VisibleCells,
    global_average,
    global_maximum,
    hide,
    show,
    upsample_mask,
)


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


def test_upsampling_repeats_cells():
    visible = torch.rand(2, 1, 2, 3, 2) < 0.5
    fine = upsample_mask(visible, (4, 9, 2))
    assert fine.shape == (2, 1, 4, 9, 2)
    assert torch.equal(fine[:, :, ::2, ::3], visible)
    assert torch.equal(fine[:, :, 1::2, 2::3], visible)
    with pytest.raises(ValueError, match="multiple"):
        upsample_mask(torch.ones(1, 1, 2, 2, dtype=torch.bool), (5, 4))


def test_what_is_hidden_may_be_anything():
    cells = VisibleCells(torch.tensor([[[[True, False]]]]))
    x = torch.tensor([[[[2.0, float("nan")], [-1.0, float("inf")]]]])
    assert show(x, cells).tolist() == [[[[2.0, 0.0], [-1.0, 0.0]]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_mean_in_half_precision_may_be_over_any_number_of_voxels(dtype):
    cells = VisibleCells(torch.ones(1, 1, 4, 4, 4, dtype=torch.bool))
    assert global_average(torch.full((1, 2, 64, 64, 64), 0.5, dtype=dtype), cells).tolist() == [
        [[[[0.5]]]] * 2
    ]


def test_pooling_counts_seen_positions_only(case):
    x, cells, rows = case
    x = -x  # a maximum that saw the zeros would be 0
    for pool, reduce in ((global_average, torch.Tensor.mean), (global_maximum, torch.Tensor.amax)):
        pooled = pool(x, cells)
        assert pooled.shape == (3, 4, *(1,) * (x.ndim - 2))
        expected = torch.stack([reduce(-sample, dim=0) for sample in rows])
        torch.testing.assert_close(pooled.flatten(1), expected)
