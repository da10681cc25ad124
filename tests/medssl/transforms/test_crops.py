from __future__ import annotations

import pytest
import torch

from medssl.transforms.crops import CropBoxes, cell_centres, crop, draw_boxes, sample_at


def ramps(shape, batch=1):
    """(B, n, *S): channel d holds the image coordinate of axis d at each voxel."""
    marks = [(torch.arange(s, dtype=torch.float64) + 0.5) / s for s in shape]
    return torch.stack(torch.meshgrid(*marks, indexing="ij")).expand(batch, len(shape), *shape)


def upright(lower, upper):
    lower, upper = torch.tensor([lower]).double(), torch.tensor([upper]).double()
    return CropBoxes((lower + upper) / 2, torch.diag_embed(upper - lower))


SHAPES = pytest.mark.parametrize("shape", [(20, 31), (13, 20, 17)], ids=["plane", "space"])


@SHAPES
def test_whole_box_at_own_size_is_the_image(generator, shape):
    x = torch.rand(1, 2, *shape, generator=generator, dtype=torch.float64)
    whole = upright([0.0] * len(shape), [1.0] * len(shape))
    torch.testing.assert_close(crop(x, [whole], shape)[0], x)


def test_box_on_voxel_borders_is_a_slice(generator):
    x = torch.rand(1, 1, 10, 20, 8, generator=generator, dtype=torch.float64)
    box = upright([0.2, 0.25, 0.5], [0.7, 0.5, 1.0])
    torch.testing.assert_close(crop(x, [box], (5, 5, 4))[0], x[:, :, 2:7, 5:10, 4:])
    label = torch.randint(5, (1, 1, 10, 20, 8), generator=generator)
    cut = crop(label, [box], (5, 5, 4), mode="nearest")[0]
    assert torch.equal(cut, label[:, :, 2:7, 5:10, 4:])


@SHAPES
@pytest.mark.parametrize("angle", [0.0, 20.0])
def test_crop_of_coordinates_gives_the_cell_centres(generator, shape, angle):
    """Geometry and sampling agree: a crop of the coordinate ramps holds its own locations."""
    n = len(shape)
    boxes = draw_boxes(5, shape, generator, scale=(0.05, 0.2), angle=angle)
    boxes = CropBoxes(0.5 + 0.2 * (boxes.centre - 0.5), boxes.axes).to(torch.zeros((), dtype=torch.float64))
    size = (6, 5, 7)[:n]
    centres = cell_centres(boxes, size)
    assert centres.shape == (5, *size, n)
    cut = crop(ramps(shape, 5), [boxes], size)[0]
    torch.testing.assert_close(cut, centres.movedim(-1, 1))


@SHAPES
def test_boxes_lie_inside_with_the_asked_volume(generator, shape):
    boxes = draw_boxes(500, shape, generator, scale=(0.1, 0.4), aspect=1.2)
    half = boxes.extent / 2
    assert (boxes.centre - half >= -1e-6).all()
    assert (boxes.centre + half <= 1 + 1e-6).all()
    volume = boxes.extent.prod(dim=1)
    assert 0.099 < volume.min() < 0.12
    assert 0.38 < volume.max() < 0.401
    ratio = boxes.extent / volume[:, None] ** (1 / len(shape))
    assert ratio.max() <= 1.2 + 1e-6
    assert ratio.max() > 1.1


@SHAPES
def test_rotated_boxes_lie_inside_where_they_fit(generator, shape):
    """A box too wide for the image along an axis is in its middle; others have room on both sides."""
    boxes = draw_boxes(500, shape, generator, scale=(0.1, 1.0), angle=20)
    half, fits = boxes.extent / 2, boxes.extent <= 1
    assert (boxes.centre - half)[fits].min() >= -1e-6
    assert (boxes.centre + half)[fits].max() <= 1 + 1e-6
    torch.testing.assert_close(boxes.centre[~fits], torch.full(((~fits).sum(),), 0.5))
    assert 0.1 < fits.float().mean() < 0.9


def test_rotation_keeps_volume_and_shape_of_the_crop_in_voxels(generator):
    shape = (40, 20, 10)
    boxes = draw_boxes(50, shape, generator, scale=(0.1, 0.1), aspect=1.0, angle=30)
    in_voxels = boxes.axes * torch.tensor(shape)[:, None]
    lengths = in_voxels.norm(dim=1)
    torch.testing.assert_close(lengths, (0.1 ** (1 / 3) * torch.tensor(shape)).expand(50, 3))
    gram = in_voxels.mT @ in_voxels
    torch.testing.assert_close(gram, torch.diag_embed(lengths**2), atol=1e-3, rtol=0)


@SHAPES
def test_sample_at_finds_the_same_place_in_another_crop(generator, shape):
    """Coordinates of one crop, looked up in another crop of the coordinate ramps, come back unchanged."""
    n = len(shape)
    first = upright([0.2] * n, [0.7] * n)
    second = upright([0.1] * n, [0.9] * n)
    features = crop(ramps(shape), [second], (8,) * n)[0]
    points = cell_centres(first, (3,) * n).flatten(1, -2)
    values, inside = sample_at(features, second, points)
    assert inside.all()
    torch.testing.assert_close(values.mT, points)
    _, inside = sample_at(features, first, cell_centres(second, (4,) * n).flatten(1, -2))
    assert inside.sum() == 2**n


def test_several_boxes_in_one_call_equal_single_calls(generator):
    x = torch.rand(3, 2, 12, 9, generator=generator)
    boxes = [draw_boxes(3, (12, 9), generator) for _ in range(3)]
    for cut, box in zip(crop(x, boxes, (4, 5)), boxes, strict=True):
        torch.testing.assert_close(cut, crop(x, [box], (4, 5))[0])


def test_gradient_reaches_the_source(generator):
    x = torch.rand(1, 1, 8, 8, generator=generator, requires_grad=True)
    crop(x, [upright([0.0, 0.0], [0.5, 0.5]).to(x)], (4, 4))[0].sum().backward()
    assert x.grad is not None
    assert (x.grad[..., :4, :4] == 1).all()
    assert (x.grad[..., 4:, :] == 0).all()


def test_bad_settings_are_refused(generator):
    with pytest.raises(ValueError, match="scale"):
        draw_boxes(1, (4, 4), generator, scale=(0.0, 1.0))
    with pytest.raises(ValueError, match="aspect"):
        draw_boxes(1, (4, 4), generator, aspect=0.5)
