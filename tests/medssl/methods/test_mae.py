from __future__ import annotations

import pytest
import torch

from medssl.config.mae import MaeConfig
from medssl.losses.reconstruction import masked_patch_loss
from medssl.methods import METHODS
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import ResidualEncoder
from medssl.transforms.masked_image import MaskedImage
from medssl.transforms.masking import draw_visible


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param


def make(spatial_dims, **changes):
    torch.manual_seed(0)
    encoder = ResidualEncoder(spatial_dims, 1, (4, 6, 8, 8), (1, 1, 1, 1))
    config = MaeConfig(**{"width": 64, "decoder_channels": (4, 6, 8, 8), **changes})
    return METHODS["mae"].build(config, Backbone(encoder), modalities=1)


def masked(spatial_dims):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 1, *(32,) * spatial_dims, generator=generator)
    views = MaskedImage(image, draw_visible(2, (2,) * spatial_dims, 0.5, generator))
    seen = torch.nn.functional.interpolate(views.visible.float(), size=image.shape[2:]).bool()
    return views, seen


@pytest.mark.parametrize("fill", ["zero", "mean", "token"])
def test_hidden_voxels_are_replaced_and_seen_ones_kept(spatial_dims, fill):
    method = make(spatial_dims, fill=fill)
    if method.token is not None:
        torch.nn.init.constant_(method.token, 0.3)
    views, seen = masked(spatial_dims)
    filled = method.filled(views)
    assert torch.equal(filled[seen], views.image[seen])
    for number in range(2):
        expected = {"zero": 0.0, "mean": views.image[number][seen[number]].mean(), "token": 0.3}[fill]
        inside = filled[number][~seen[number]]
        torch.testing.assert_close(inside, torch.full_like(inside, float(expected)))


@pytest.mark.parametrize("decoder", ["light", "pyramid"])
def test_what_is_hidden_reaches_the_loss_as_target_only(spatial_dims, decoder):
    method = make(spatial_dims, decoder=decoder).eval()
    views, seen = masked(spatial_dims)
    other = MaskedImage(torch.where(seen, views.image, float("nan")), views.visible)
    assert torch.equal(method.filled(views), method.filled(other))
    x = method.filled(views)
    prediction = method.reconstruct(x, method.backbone(x))
    losses = method(views, 0)
    expected = masked_patch_loss(prediction, views.image, views.visible, normalise=False)
    torch.testing.assert_close(losses.total, expected)
    torch.testing.assert_close(losses.total, (prediction - views.image)[~seen].square().mean())


def test_the_token_learns(spatial_dims):
    method = make(spatial_dims, fill="token")
    views, _ = masked(spatial_dims)
    method(views, 0).total.backward()
    assert (method.token.grad != 0).all()
