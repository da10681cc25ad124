from __future__ import annotations

import math

import pytest
import torch

from medssl.tasks.centres import centre_targets, level_of


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_box_belongs_to_the_level_where_it_is_four_cells_wide(spatial_dims):
    edges = torch.tensor([1.0, 4.0, 8.0, 11.0, 12.0, 16.0, 100.0])[:, None].expand(-1, spatial_dims)
    boxes = torch.cat([torch.zeros_like(edges), edges], dim=1)
    strides = [(s,) * spatial_dims for s in (2, 4, 8)]
    assert level_of(boxes, strides, 4.0).tolist() == [0, 0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_heat_is_one_at_the_centre_and_gaussian_around(spatial_dims):
    n = spatial_dims
    boxes = torch.tensor([[[4.0] * n + [10.0] * n, [0.0] * n + [1.0] * n]])
    (target,) = centre_targets(
        boxes, torch.tensor([[1, -1]]), [(8,) * n], [(2,) * n], class_count=2, blur=0.6
    )
    middle = (3,) * n  # centre 7 voxels lies in the middle of cell 3
    beside = (3,) * (n - 1) + (4,)
    assert target.heat.shape == (1, 2, *(8,) * n)
    assert float(target.heat[(0, 1, *middle)]) == 1
    assert float(target.heat[(0, 1, *beside)]) == pytest.approx(math.exp(-1 / (2 * 0.6**2)), rel=1e-5)
    assert int((target.heat == 1).sum()) == 1
    assert float(target.heat[:, 0].abs().sum()) == 0, "padding and other classes stay empty"
    assert (target.judged == 1).all()
    assert torch.equal(target.box[(0, slice(None), *middle)], boxes[0, 0])
    assert float(target.weight[(0, *middle)]) == 1


def test_a_centre_between_cells_is_a_hit_in_both():
    boxes = torch.tensor([[[2.0, 1.0, 6.0, 5.0]]])  # centre (4, 3): on the border of two rows of cells
    (target,) = centre_targets(boxes, torch.tensor([[0]]), [(4, 4)], [(2, 2)], class_count=1)
    assert (target.heat[0, 0] == 1).nonzero().tolist() == [[1, 1], [2, 1]]


def test_a_cut_off_box_is_not_judged_and_draws_nothing():
    boxes = torch.tensor([[[4.0, 4.0, 8.0, 8.0]]])
    (target,) = centre_targets(boxes, torch.tensor([[-2]]), [(8, 8)], [(2, 2)], class_count=1)
    assert float(target.heat.sum()) == 0
    assert float(target.weight.sum()) == 0
    assert (target.judged[0, 0] == 0).nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_the_nearer_box_is_drawn_and_large_boxes_go_to_coarse_levels():
    boxes = torch.tensor([[[0.0, 0, 4, 4], [4.0, 0, 8, 4], [0.0, 0, 32, 32]]])
    fine, coarse = centre_targets(
        boxes, torch.tensor([[0, 0, 0]]), [(16, 16), (4, 4)], [(2, 2), (8, 8)], class_count=1, blur=0.8
    )
    assert torch.equal(fine.box[0, :, 1, 1], boxes[0, 0])
    assert torch.equal(fine.box[0, :, 3, 1], boxes[0, 1])
    assert torch.equal(coarse.box[0, :, 2, 2], boxes[0, 2])
    assert int((coarse.heat == 1).sum()) == 4
