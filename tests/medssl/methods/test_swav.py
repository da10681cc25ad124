from __future__ import annotations

import numpy as np
import pytest
import torch

from medssl.config.augmentation import IntensityConfig
from medssl.config.swav import ClusteringConfig, SwavConfig
from medssl.inference.embed import describe_steps
from medssl.inference.load import load_encoder
from medssl.jobs.progress import drain
from medssl.methods import METHODS
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import ResidualEncoder
from medssl.protocols import Batch
from medssl.training.export import export_weights
from medssl.volume import Geometry, Volume

CALM = IntensityConfig(energy_p=0, tone_p=0, gamma_p=0, linear_p=0, bias_p=0, blur_p=0, noise_p=0)


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param


def settings(**changes) -> SwavConfig:
    part = ClusteringConfig(prototypes=8, hidden=16, dim=8)
    values = {
        "crops": part,
        "cells": part,
        "cells_per_crop": 20,
        "global_size": 32,
        "local_size": 16,
        "local_count": 2,
        "turn_p": 1.0,
        "freeze_prototypes_steps": 2,
    }
    return SwavConfig(**{**values, **changes})


def make(spatial_dims, **changes):
    torch.manual_seed(0)
    encoder = ResidualEncoder(spatial_dims, 1, (4, 6, 8, 8), (1, 1, 1, 1))
    entry = METHODS["swav"]
    return entry.build(settings(**changes), Backbone(encoder), modalities=2)


def batch(spatial_dims, size=40, count=4, seed=0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, *(8,) * spatial_dims, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=(size,) * spatial_dims)
    return Batch(
        image=image,
        spacing=torch.ones(count, spatial_dims),
        modality=torch.arange(count) % 2,
        index=torch.arange(count),
    )


def drawn(method, data, seed=0):
    return method.views(data, torch.Generator().manual_seed(seed))


def test_views_have_the_asked_sizes_and_count(spatial_dims):
    views = drawn(make(spatial_dims), batch(spatial_dims))
    assert [tuple(crop.shape[2:]) for crop in views.crops] == [(32,) * spatial_dims] * 2 + [
        (16,) * spatial_dims
    ] * 2
    assert views.places.shape == (4, 20, spatial_dims)


def test_views_depend_on_the_generator_alone(spatial_dims):
    method, data = make(spatial_dims), batch(spatial_dims)
    a, b, c = (drawn(method, data, seed) for seed in (1, 1, 2))
    for x, y in zip(a.crops, b.crops, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)
    assert not torch.equal(a.crops[0], c.crops[0])


def test_both_global_crops_show_the_same_place(spatial_dims):
    # A feature map that is the image itself must give the value of the image at every shared place.
    method, data = make(spatial_dims, intensity=CALM), batch(spatial_dims)
    ramp = torch.linspace(0, 1, 40).view(-1, *(1,) * (spatial_dims - 1)).expand((40,) * spatial_dims)
    data = Batch(ramp.expand(4, 1, *ramp.shape).contiguous(), data.spacing, data.modality, data.index)
    views = drawn(method, data)
    assert views.seen.float().mean() > 0.9
    from medssl.transforms.crops import sample_at

    expected = ((views.places[..., 0] * 40 - 0.5) / 39).clamp(0, 1)
    for crop, box in zip(views.crops[:2], views.boxes[:2], strict=True):
        values = sample_at(crop, box, views.places)[0][:, 0]
        assert (values - expected)[views.seen].abs().max() < 0.03


def test_places_marked_as_seen_lie_in_both_crops(spatial_dims):
    views = drawn(make(spatial_dims, global_scale=(0.1, 0.2)), batch(spatial_dims))
    assert 0 < views.seen.float().mean() < 1
    for box in views.boxes[:2]:
        inside = box.relative(views.places)[views.seen]
        assert (inside >= 0).all()
        assert (inside <= 1).all()


def test_prototypes_are_frozen_then_move_and_stay_unit(spatial_dims):
    method = make(spatial_dims).train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    banks = [method.crops.prototypes.weight, method.cells.prototypes.weight]
    start = [bank.detach().clone() for bank in banks]
    for step in range(3):
        losses = method(drawn(method, batch(spatial_dims), step), step)
        optimizer.zero_grad()
        losses.total.backward()
        method.after_backward(step)
        optimizer.step()
        moved = [not torch.equal(bank, before) for bank, before in zip(banks, start, strict=True)]
        assert moved == [step >= 2] * 2
    method(drawn(method, batch(spatial_dims)), 3)
    for bank in banks:
        torch.testing.assert_close(bank.norm(dim=1), torch.ones(8))


def test_order_of_local_crops_does_not_matter(spatial_dims):
    method = make(spatial_dims).eval()
    views = drawn(method, batch(spatial_dims))
    swapped = type(views)(
        [*views.crops[:2], views.crops[3], views.crops[2]],
        [*views.boxes[:2], views.boxes[3], views.boxes[2]],
        views.modality,
        views.places,
        views.seen,
    )
    torch.testing.assert_close(method(views, 0).total, method(swapped, 0).total)


@pytest.mark.parametrize(("crops", "cells"), [(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)])
def test_weights_add_up(spatial_dims, crops, cells):
    part = ClusteringConfig(prototypes=8, hidden=16, dim=8)
    method = make(
        spatial_dims,
        crops=part.model_copy(update={"weight": crops}),
        cells=part.model_copy(update={"weight": cells}),
    ).eval()
    losses = method(drawn(method, batch(spatial_dims)), 0)
    parts = {"crops": crops, "cells": cells}
    expected = sum(w * losses.metrics[f"{name}/loss"] for name, w in parts.items() if w)
    torch.testing.assert_close(losses.total.detach(), expected)
    assert method.exported().get("prototypes") is (method.cells.prototypes if cells else None)


def test_nothing_to_learn_is_refused():
    part = ClusteringConfig(weight=0.0)
    with pytest.raises(ValueError, match="nothing to learn"):
        SwavConfig(crops=part, cells=part)


def test_overfits_a_tiny_batch(spatial_dims):
    method = make(spatial_dims, freeze_prototypes_steps=0, intensity=CALM, turn_p=0).train()
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    views = drawn(method, batch(spatial_dims))
    history = []
    for step in range(30):
        losses = method(views, step)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append(float(losses.total.detach()))
    assert min(history[-3:]) < 0.6 * history[0]
    assert losses.metrics["cells/feature_spread"] > 0.3


def test_generated_volumes_are_a_modality_of_their_own(spatial_dims):
    method = make(spatial_dims, synthetic=0.5, intensity=CALM)
    data = batch(spatial_dims)
    views = drawn(method, data)
    assert views.modality.tolist() == [0, 1, 2, 2]
    assert method.prototype_blocks() == [(0, 2), (2, 5)]  # of 8, the rest for what is generated
    losses = method(views, 0)
    assert torch.isfinite(losses.total)
    # real samples are what they were without any generated ones
    plain = drawn(make(spatial_dims, intensity=CALM), data)
    assert plain.modality.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("split", "weights"), [("equal", [1, 1, 1]), ("sqrt", [10, 4, 7]), ("log", [4.61512, 2.83321, 3.72417])]
)
def test_prototypes_of_a_modality_by_the_number_of_its_volumes(split, weights):
    config = settings(synthetic=0.5, prototype_split=split).for_modalities([100, 16])
    assert config.prototype_weights(3) == pytest.approx(weights, rel=1e-5)
    absent = settings(prototype_split=split).for_modalities([9, 0]).prototype_weights(2)
    assert absent[1] > 0, "a modality that only held-out volumes have still has prototypes"
    with pytest.raises(ValueError, match="modality_volumes of 3"):
        settings(prototype_split="sqrt").prototype_weights(3)


@pytest.mark.parametrize("mode", ["shared", "per_modality_marginal"])
def test_prototypes_that_all_may_use_have_no_blocks(spatial_dims, mode):
    assert make(spatial_dims, modality_mode=mode).prototype_blocks() == []


def test_weights_of_the_published_form_embed_a_scan(spatial_dims, tmp_path):
    method = make(spatial_dims, cells=ClusteringConfig(weight=0.0))
    metadata = {"method": "swav", "encoder": {"name": "tiny", **method.backbone.encoder.config}}
    metadata |= {"preprocessing": {"spacing_range": [1.0, 1.0]}, "modalities": ["CT", "MR"]}
    scan = Volume(
        np.zeros((1, *(32,) * spatial_dims)),
        Geometry.from_arrays((32,) * spatial_dims, (1.0,) * spatial_dims),
        "CT",
    )
    older = {"head": method.crops.head, "prototypes": method.crops.prototypes}
    for name, modules in (("now", method.exported()), ("older", older)):
        export_weights(tmp_path / f"{name}.safetensors", method.backbone, metadata, modules=modules)
        loaded = load_encoder(tmp_path / f"{name}.safetensors")
        embedding = drain(describe_steps(scan, loaded))
        assert embedding.features.array.shape[1:] == (8,) * spatial_dims
        assert embedding.prototypes is None, "the head of whole crops says nothing of a cell"
