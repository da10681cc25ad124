from __future__ import annotations

import math

import pytest
import torch
from monai.data.box_utils import box_pair_giou

from medssl.losses.detection import box_loss, centre_focal_loss, generalised_iou


def test_focal_loss_of_three_cells_by_hand():
    logits = torch.tensor([[[0.0, 2.0, -1.0]]])
    target = torch.tensor([[[1.0, 0.5, 0.0]]])
    p = [1 / (1 + math.exp(-x)) for x in (0.0, 2.0, -1.0)]
    expected = -(
        (1 - p[0]) ** 2 * math.log(p[0])
        + (1 - 0.5) ** 4 * p[1] ** 2 * math.log(1 - p[1])
        + p[2] ** 2 * math.log(1 - p[2])
    )
    assert float(centre_focal_loss(logits, target, torch.ones(1))) == pytest.approx(expected, rel=1e-5)
    weight = torch.tensor([[[1.0, 0.0, 0.0]]])
    alone = -((1 - p[0]) ** 2) * math.log(p[0])
    assert float(centre_focal_loss(logits, target, weight)) == pytest.approx(alone, rel=1e-5)


def test_focal_loss_survives_extreme_logits():
    logits = torch.tensor([[[100.0, -100.0]]], requires_grad=True)
    loss = centre_focal_loss(logits, torch.tensor([[[0.0, 1.0]]]), torch.ones(1))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_generalised_iou_equals_monai(spatial_dims):
    torch.manual_seed(0)
    start = torch.rand(2, 20, spatial_dims) * 6
    boxes = torch.cat([start, start + 0.5 + 4 * torch.rand_like(start)], dim=-1)
    torch.testing.assert_close(generalised_iou(boxes[0], boxes[1]), box_pair_giou(boxes[0], boxes[1]))


def test_generalised_iou_by_hand():
    first, second = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2], [4, 0, 6, 2], [0, 0, 2, 2]])
    values = generalised_iou(first.expand(3, 4), second)
    torch.testing.assert_close(values, torch.tensor([2 / 6, -4 / 12, 1.0]))


def test_box_loss_weights_and_needs_no_box():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]], requires_grad=True)
    target = torch.tensor([[0.0, 0, 2, 2], [4, 0, 6, 2]])
    loss = box_loss(boxes, target, torch.tensor([3.0, 1.0]))
    assert float(loss.detach()) == pytest.approx((1 + 1 / 3) / 4)
    loss.backward()
    assert boxes.grad is not None
    assert boxes.grad[1].abs().sum() > 0, "boxes apart still pull each other"
    assert float(box_loss(boxes[:0].detach(), target[:0], torch.zeros(0))) == 0
