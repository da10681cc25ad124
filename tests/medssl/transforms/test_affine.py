from __future__ import annotations

import pytest
import torch

from medssl.transforms.affine import draw_affine, move
from medssl.transforms.crops import CropBoxes


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_nothing_drawn_leaves_image_and_label_as_they_are(spatial_dims):
    shape = (7, 9, 11)[:spatial_dims]
    image, label = torch.rand(3, 2, *shape), torch.randint(0, 4, (3, 1, *shape))
    boxes = draw_affine(3, shape, torch.Generator().manual_seed(0), p=0.0)
    moved, known = move(image, label, boxes)
    torch.testing.assert_close(moved, image, atol=1e-5, rtol=0)
    assert torch.equal(known, label)


def test_a_quarter_turn_turns_both_and_the_outside_is_unlabelled():
    image = torch.rand(1, 1, 8, 8)
    label = torch.randint(0, 4, (1, 1, 8, 8))
    turn = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    moved, known = move(image, label, CropBoxes(torch.full((1, 2), 0.5), turn))
    options = [torch.rot90(image, k, (2, 3)) for k in (1, 3)]
    match = [torch.allclose(moved, option, atol=1e-5) for option in options]
    assert sum(match) == 1
    assert torch.equal(known, torch.rot90(label, (1, 3)[match.index(True)], (2, 3)))
    wide = CropBoxes(torch.full((1, 2), 0.5), 2 * torch.eye(2)[None])
    _, known = move(image, label, wide)
    assert (known == -1).sum() == 64 - 16
    assert (known[:, :, 2:6, 2:6] >= 0).all()


def test_rotation_keeps_lengths_in_voxels_of_a_patch_that_is_no_cube():
    boxes = draw_affine(50, (10, 40), torch.Generator().manual_seed(0), angle=90, scaling=1.0)
    axes = boxes.axes * torch.tensor([10.0, 40.0])[:, None]  # columns: edges of the box in voxels
    torch.testing.assert_close(axes.norm(dim=1), torch.tensor([[10.0, 40.0]]).expand(50, 2))
