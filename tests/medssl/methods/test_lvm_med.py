from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from medssl.config.augmentation import IntensityConfig
from medssl.config.lvm_med import LvmMedConfig
from medssl.errors import InputError
from medssl.methods import METHODS
from medssl.methods.lvm_med import best_reached, spread
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import ResidualEncoder
from medssl.protocols import Batch

CALM = IntensityConfig(energy_p=0, tone_p=0, gamma_p=0, linear_p=0, bias_p=0, blur_p=0, noise_p=0)


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param


def make(spatial_dims, modalities=1, **changes):
    torch.manual_seed(0)
    values = {"nodes": 6, "neighbours": 2, "dim": 16, "size": 32, "gumbel_scale": 0.0, "intensity": CALM}
    encoder = ResidualEncoder(spatial_dims, 1, (4, 6, 8, 8), (1, 1, 1, 1))
    config = LvmMedConfig(**{**values, **changes})
    return METHODS["lvm-med"].build(config, Backbone(encoder), modalities)


def batch(spatial_dims, count=6, size=40, seed=0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, *(8,) * spatial_dims, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=(size,) * spatial_dims)
    return Batch(image, torch.ones(count, spatial_dims), torch.arange(count) % 2, torch.arange(count))


def drawn(method, data, seed=0):
    return method.views(data, torch.Generator().manual_seed(seed))


def same_views(views):
    """Both views are the first one: every image fits itself perfectly."""
    return replace(views, images=(views.images[0],) * 2, boxes=(views.boxes[0],) * 2)


def test_left_over_images_are_dropped_and_small_batches_are_one_graph(spatial_dims):
    views = drawn(make(spatial_dims), batch(spatial_dims, 13))
    assert views.images[0].shape == (12, 1, *(32,) * spatial_dims)
    assert views.modality.shape == (2, 6)
    assert drawn(make(spatial_dims), batch(spatial_dims, 4)).modality.shape == (1, 4)
    with pytest.raises(InputError, match="at least 2"):
        drawn(make(spatial_dims), batch(spatial_dims, 1))


def test_views_depend_on_the_generator_alone(spatial_dims):
    method, data = make(spatial_dims), batch(spatial_dims)
    a, b, c = (drawn(method, data, seed) for seed in (1, 1, 2))
    torch.testing.assert_close(a.images[1], b.images[1], rtol=0, atol=0)
    assert a.noise == b.noise != c.noise
    assert not torch.equal(a.images[0], c.images[0])


def test_equal_views_are_matched_without_loss_and_gradient(spatial_dims):
    method = make(spatial_dims).eval()
    losses = method(same_views(drawn(method, batch(spatial_dims))), 0)
    losses.total.backward()
    assert losses.total == 0
    assert losses.metrics["match_accuracy"] == losses.metrics["noise_free_accuracy"] == 1
    assert all((p.grad == 0).all() for p in method.parameters() if p.grad is not None)


def test_an_image_of_the_same_volume_is_as_right_without_noise_as_with_it(spatial_dims):
    method = make(spatial_dims, gumbel_scale=0, matching="lap").eval()
    views = same_views(drawn(method, batch(spatial_dims)))
    half = views.volume.shape[1] // 2
    volume = torch.arange(2).repeat_interleave(half).expand_as(views.volume)
    # the second view shows the images of each volume the other way round
    turned_ = torch.cat([torch.arange(half).flip(0) + start for start in (0, half)])
    order = torch.cat([turned_ + graph * 2 * half for graph in range(len(views.volume))])
    images = [views.images[0], views.images[1][order]]
    metrics = method(replace(views, images=images, volume=volume), 0).metrics
    assert metrics["noise_free_accuracy"] == metrics["match_accuracy"] == 1


def test_shuffled_view_is_matched_to_its_shuffle(spatial_dims):
    """With the order of the second view shuffled without a fixed image, every match is a miss."""
    method = make(spatial_dims).eval()
    views = same_views(drawn(method, batch(spatial_dims)))
    order = torch.tensor([1, 2, 3, 4, 5, 0])
    shuffled = replace(views, images=(views.images[0], views.images[0][order]))
    moved = type(views.boxes[0])(views.boxes[0].centre[order], views.boxes[0].axes[order])
    losses = method(replace(shuffled, boxes=(views.boxes[0], moved)), 0)
    assert losses.total == 12
    assert losses.metrics["match_accuracy"] == 0


def test_loss_is_twice_the_mismatches_and_reaches_every_part(spatial_dims):
    method = make(spatial_dims, gumbel_scale=1.0, nodes=4).train()
    losses = method(drawn(method, batch(spatial_dims, 8)), 0)
    losses.total.backward()
    wrong = (1 - losses.metrics["match_accuracy"]) * 8
    torch.testing.assert_close(losses.total.detach(), 2 * wrong / 2)
    assert losses.total > 0
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert sum(float(p.grad.abs().sum()) for p in method.backbone.parameters()) > 0


def test_noise_is_that_of_the_views(spatial_dims):
    method, data = make(spatial_dims, gumbel_scale=1.0).eval(), batch(spatial_dims)
    views = drawn(method, data)
    totals = {float(method(replace(views, noise=number), 0).total.detach()) for number in range(12)}
    assert len(totals) > 1
    assert method(views, 0).total == method(views, 0).total


def test_shortcut_changes_nothing(spatial_dims):
    gradients = []
    for shortcut in (False, True):
        method = make(spatial_dims, gumbel_scale=1.0, shortcut=shortcut).train()
        method(drawn(method, batch(spatial_dims, 12)), 0).total.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in method.parameters()]))
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 1.0},
        {"layers": 0},
        {"convolution": "self"},
        {"matching": "lap"},
        {"projector": "mlp"},
        {"centre": False},
        {"both_directions": False},
    ],
)
def test_ablations_train(spatial_dims, changes):
    method = make(spatial_dims, gumbel_scale=1.0, **changes).train()
    losses = method(drawn(method, batch(spatial_dims)), 0)
    losses.total.backward()
    assert losses.total > 0
    assert float(method.backbone.encoder.stages[0][0].conv.weight.grad.abs().sum()) > 0


def test_coordinates_are_mm_in_three_dimensions(spatial_dims):
    data = batch(spatial_dims)
    data = replace(data, spacing=torch.tensor([[3.0, 1.0, 2.0][:spatial_dims]]).expand(6, -1))
    extent = drawn(make(spatial_dims), data).extent
    assert extent[0].tolist() == ([1.0, 1.0] if spatial_dims == 2 else [120.0, 40.0, 80.0])
    assert drawn(make(spatial_dims, coordinates="fraction"), data).extent.eq(1).all()
    assert drawn(make(spatial_dims, coordinates="mm"), data).extent[0, 0] == 120


def test_more_cells_than_wanted_are_drawn_anew(spatial_dims):
    method = make(spatial_dims, cells=3).eval()
    views = drawn(method, batch(spatial_dims))
    losses = method(views, 0)
    assert torch.isfinite(losses.total)
    # 4 or 8 cells are there: with all of them the draw does not matter
    whole = make(spatial_dims, cells=8).eval()
    maps = whole.backbone(torch.cat(views.images))[-1]
    halves = (maps[:6], maps[6:])
    first, again = (whole._local(halves, views, torch.Generator().manual_seed(s)) for s in (0, 1))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    few = [method._local(halves, views, torch.Generator().manual_seed(s)) for s in (0, 1)]
    assert not torch.equal(*few)


def test_samples_of_one_volume_go_to_different_graphs():
    index = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 5])
    seen = set()
    for number in range(20):
        order = spread(index, 4, torch.Generator().manual_seed(number))
        assert sorted(order.tolist()) == list(range(12))
        for graph in index[order].view(3, 4):
            assert len(graph.unique()) == 4
        seen.add(tuple(order.tolist()))
    assert len(seen) > 10
    assert len(spread(index, 5, torch.Generator())) == 10


def test_images_of_one_volume_may_stand_for_each_other(spatial_dims):
    """Two copies of an image cannot be told apart: to swap them costs nothing."""
    swapped = torch.eye(4)[[1, 0, 3, 2]][None]
    target, right = best_reached(swapped, torch.tensor([[7, 7, 2, 3]]))
    torch.testing.assert_close(target, torch.eye(4)[[1, 0, 2, 3]][None])
    assert right.tolist() == [[1, 1, 0, 0]]
    method, data = make(spatial_dims).eval(), batch(spatial_dims)
    image = data.image.clone()
    image[1] = image[0]
    copies = replace(data, image=image, index=torch.tensor([0, 0, 2, 3, 4, 5]))
    for number in range(6):
        losses = method(same_views(drawn(method, copies, number)), 0)
        assert losses.total == 0
        assert losses.metrics["match_accuracy"] == 1


@pytest.mark.parametrize("gumbel_scale", [0.0, 1.0])
def test_a_collapsed_encoder_matches_by_chance(spatial_dims, gumbel_scale):
    """All images alike: one of N is right (C.7, law 11), and the loss is not at its least."""
    method = make(spatial_dims, gumbel_scale=gumbel_scale, dim=8).eval()
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.zero_()
    views = drawn(method, batch(spatial_dims, 12))
    found = [method(replace(views, noise=number), 0) for number in range(40)]
    for name in ("noise_free_accuracy", "match_accuracy"):
        right = sum(float(losses.metrics[name]) for losses in found) / 40  # of 480 images
        assert right == pytest.approx(1 / 6, abs=0.08), name
    mean = sum(float(losses.total.detach()) for losses in found) / 40
    assert mean == pytest.approx(2 * 6 * 5 / 6, abs=1)
    assert found[0].metrics["feature_spread"] < 1e-3


def test_processes_need_whole_graphs(spatial_dims, monkeypatch):
    monkeypatch.setattr("medssl.methods.lvm_med.world_size", lambda: 2)
    drawn(make(spatial_dims), batch(spatial_dims, 12))
    with pytest.raises(InputError, match=r"each of the 2 processes has 8 images.*a multiple of 12"):
        drawn(make(spatial_dims), batch(spatial_dims, 8))


def test_accuracy_is_reported_per_modality(spatial_dims):
    method = make(spatial_dims, modalities=2, gumbel_scale=1.0)
    metrics = method(drawn(method, batch(spatial_dims)), 0).metrics
    mean = (metrics["noise_free_accuracy/modality_0"] + metrics["noise_free_accuracy/modality_1"]) / 2
    torch.testing.assert_close(mean, metrics["noise_free_accuracy"])


def test_affinities_that_are_not_finite_make_the_loss_so(spatial_dims):
    method = make(spatial_dims)
    with torch.no_grad():
        method.projector.bias.fill_(float("nan"))
    assert not torch.isfinite(method(drawn(method, batch(spatial_dims)), 0).total)


def test_overfits_a_tiny_batch(spatial_dims):
    method = make(spatial_dims, gumbel_scale=0.1, turn_p=0, starts=2).train()
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    views = drawn(method, batch(spatial_dims))
    history = []
    for step in range(60):
        losses = method(replace(views, noise=step), step)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append(float(losses.total.detach()))
    assert sum(history[-10:]) < 0.5 * sum(history[:10])
    assert losses.metrics["noise_free_accuracy"] > 0.6
    assert losses.metrics["feature_spread"] > 0.3
