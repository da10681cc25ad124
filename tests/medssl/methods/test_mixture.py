from __future__ import annotations

import pytest
import tiny_methods
import torch

from medssl.config.swav import ClusteringConfig, SwavConfig
from medssl.config.synthesis import SynthesisConfig
from medssl.methods import METHODS
from medssl.methods.mixture import GeneratedViews, Mixture
from medssl.methods.swav import Swav
from medssl.methods.synthesis import Synthesis
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import ResidualEncoder
from medssl.protocols import Batch


def make(spatial_dims=2, share=0.34):
    torch.manual_seed(0)
    backbone = Backbone(ResidualEncoder(spatial_dims, 1, (4, 8, 8, 8), (1, 1, 1, 1)))
    part = ClusteringConfig(prototypes=8, hidden=16, dim=8)
    swav = Swav(
        backbone,
        2,
        SwavConfig(
            crops=part,
            cells=part,
            cells_per_crop=20,
            global_size=32,
            local_count=0,
            freeze_prototypes_steps=9,
        ),
    )
    generated = SynthesisConfig(cells_per_crop=20, hidden=16, dim=8, global_size=32)
    return Mixture(swav, Synthesis(backbone, generated), share)


def batch(spatial_dims=2) -> Batch:
    image = torch.rand(2, 1, *(40,) * spatial_dims, generator=torch.Generator().manual_seed(0))
    return Batch(image, torch.ones(2, spatial_dims), torch.arange(2), torch.arange(2))


def turns(mixture, count):
    generator = torch.Generator().manual_seed(0)
    return [isinstance(mixture.views(batch(), generator), GeneratedViews) for _ in range(count)]


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, [False, True] * 3), (0.34, [False, False, True] * 2), (0.75, [False, True, True, True] * 2)],
)
def test_generated_batches_are_spread_evenly(share, expected):
    assert turns(make(share=share), len(expected)) == expected


def test_a_restored_mixture_goes_on_in_turn():
    first, second = make(), make()
    whole = turns(make(), 7)
    head = turns(first, 4)
    second.load_state_dict(first.state_dict())
    assert head + turns(second, 3) == whole


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_both_turns_train_the_one_backbone(spatial_dims):
    mixture = make(spatial_dims, share=0.5)
    generator = torch.Generator().manual_seed(0)
    for expected in ("cells/loss", "synthesis/loss"):
        mixture.zero_grad()
        losses = mixture(mixture.views(batch(spatial_dims), generator), 0)
        losses.total.backward()
        mixture.after_backward(0)
        assert expected in losses.metrics
        assert all(
            p.grad is not None and p.grad.abs().sum() > 0 for p in mixture.backbone.encoder.parameters()
        )
        assert mixture.method.cells.prototypes.weight.grad is None  # frozen at the start, as alone


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", sorted(set(METHODS) - {"synthesis"}))
def test_every_method_mixes_with_generated_volumes(name, spatial_dims):
    method = tiny_methods.make(name, spatial_dims).train()
    generated = SynthesisConfig(cells_per_crop=16, hidden=16, dim=8, global_size=32)
    mixture = Mixture(method, Synthesis(method.backbone, generated), 0.5)
    data, generator = tiny_methods.make_batch(spatial_dims), torch.Generator().manual_seed(0)
    for step, is_generated in enumerate((False, True)):
        mixture.zero_grad()
        losses = mixture(mixture.views(data, generator), step)
        losses.total.backward()
        assert ("synthesis/loss" in losses.metrics) is is_generated
        first = next(mixture.backbone.encoder.parameters()).grad
        assert first.isfinite().all()
        assert first.abs().sum() > 0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_that_mixes_nothing_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        make(share=share)


def test_two_backbones_are_refused():
    one, other = make(), make()
    with pytest.raises(ValueError, match="same backbone"):
        Mixture(one.method, other.synthesis, 0.5)
