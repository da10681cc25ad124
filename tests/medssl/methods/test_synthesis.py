from __future__ import annotations

import pytest
import torch

from medssl.config.augmentation import IntensityConfig
from medssl.config.synthesis import SynthesisConfig
from medssl.methods import METHODS
from medssl.methods.synthesis import _labels_at
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import ResidualEncoder
from medssl.protocols import Batch
from medssl.transforms.crops import CropBoxes

CALM = IntensityConfig(energy_p=0, tone_p=0, gamma_p=0, linear_p=0, bias_p=0, blur_p=0, noise_p=0)


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param


def make(spatial_dims, channels=1, **changes):
    torch.manual_seed(0)
    encoder = ResidualEncoder(spatial_dims, channels, (4, 8, 8, 8), (1, 1, 1, 1))
    settings = {"cells_per_crop": 48, "hidden": 16, "dim": 8, "global_size": 32, **changes}
    return METHODS["synthesis"].build(SynthesisConfig(**settings), Backbone(encoder), modalities=2)


def batch(spatial_dims, value=0.0, channels=1, count=3, size=40) -> Batch:
    image = torch.full((count, channels, *(size,) * spatial_dims), value)
    number = torch.arange(count)
    return Batch(image, torch.ones(count, spatial_dims), number % 2, number)


def drawn(method, data, seed=0):
    return method.views(data, torch.Generator().manual_seed(seed))


def test_no_voxel_of_the_batch_is_used(spatial_dims):
    method = make(spatial_dims)
    a, b = (drawn(method, batch(spatial_dims, value)) for value in (0.0, 0.7))
    for x, y in zip([*a.crops, a.places, a.labels], [*b.crops, b.places, b.labels], strict=True):
        assert torch.equal(x, y)


def test_views_do_not_depend_on_the_size_of_the_source_crops(spatial_dims):
    # A volume as large as a crop of 224 pixels and views of 48 would leave one pixel in five of a tissue.
    method = make(spatial_dims)
    a, b = (drawn(method, batch(spatial_dims, size=size)) for size in (40, 90))
    for x, y in zip([*a.crops, a.places, a.labels], [*b.crops, b.places, b.labels], strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(("scale", "edge"), [((1.0, 1.0), 32), ((0.25, 0.25), {2: 64, 3: 51})])
def test_crops_have_a_voxel_for_each_of_the_volume(scale, edge, spatial_dims):
    edge = edge if isinstance(edge, int) else edge[spatial_dims]
    assert make(spatial_dims, global_scale=scale).volume_size == edge
    assert make(spatial_dims, global_scale=scale, volume_size=70).volume_size == 70


def test_views_have_the_channels_and_number_of_the_batch(spatial_dims):
    views = drawn(make(spatial_dims, channels=2), batch(spatial_dims, channels=2))
    assert [tuple(crop.shape) for crop in views.crops] == [(3, 2, *(32,) * spatial_dims)] * 2
    assert views.labels.shape == (3, 48)
    assert (views.labels >= 0).float().mean() > 0.7


def test_a_label_has_one_grey_value_in_a_calm_view(spatial_dims):
    # Texture aside, places of one label must look alike in each view: labels, boxes and places agree.
    method = make(spatial_dims, intensity=CALM, cells_per_crop=400, global_scale=(1.0, 1.0), aspect=1.0)
    views = drawn(method, batch(spatial_dims, count=4))
    for crop, box in zip(views.crops, views.boxes, strict=True):
        inside = (box.relative(views.places) * 32).long().clamp(0, 31)  # voxels of the crop
        for image, places, labels in zip(crop[:, 0], inside, views.labels, strict=True):
            values = image[tuple(places.T)]
            used = labels >= 0
            within = sum(
                float((values[labels == label] - values[labels == label].median()).abs().sum())
                for label in labels[used].unique()
            )
            between = float((values[used] - values[used].median()).abs().sum())
            assert within < 0.6 * between


def test_labels_are_those_of_the_voxel_a_place_lies_in(spatial_dims):
    labels = torch.randint(0, 9, (2, 5, 7, 6)[: spatial_dims + 1])
    shape = torch.tensor(labels.shape[1:])
    index = torch.stack([torch.randint(0, int(n), (2, 30)) for n in shape], dim=-1)
    places = (index + torch.rand(index.shape) * 0.98 + 0.01) / shape
    expected = torch.stack([m[tuple(i.T)] for m, i in zip(labels, index, strict=True)])
    assert torch.equal(_labels_at(labels, places), expected)
    border = torch.ones(2, 1, spatial_dims)  # the last border belongs to the last voxel
    assert torch.equal(_labels_at(labels, border)[:, 0], labels.flatten(1)[:, -1])


def test_it_learns_which_cells_belong_together(spatial_dims):
    method = make(spatial_dims, intensity=CALM, turn_p=0.0)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    views = drawn(method, batch(spatial_dims))
    history = []
    for step in range(25):
        losses = method(views, step)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append((float(losses.total.detach()), float(losses.metrics["match_accuracy"])))
    assert history[-1][0] < 0.75 * history[0][0]
    assert history[-1][1] > history[0][1]
    assert losses.metrics["feature_spread"] > 0.3


def test_boxes_lie_in_the_volume(spatial_dims):
    views = drawn(make(spatial_dims), batch(spatial_dims))
    for box in views.boxes:
        assert isinstance(box, CropBoxes)
        assert (box.extent <= 1 + 1e-6).all()
    assert ((views.places >= -1e-6) & (views.places <= 1 + 1e-6)).all()
