from __future__ import annotations

import pytest
import torch

from medssl.config.spark import SparkConfig
from medssl.losses.reconstruction import masked_patch_loss
from medssl.methods import METHODS
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import ResidualEncoder
from medssl.nets.resenc import ResEncEncoder
from medssl.nets.resnet import ResNetEncoder
from medssl.protocols import Batch
from medssl.training.optim import parameter_groups
from medssl.transforms.masked_image import MaskedImage

TINY = {"cell": 16, "width": 64, "decoder_channels": (4, 6, 8, 8)}
S3D = {"ratio": 0.75, "normalise": False, "decoder": "pyramid", "densify_norm": "instance"}


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param


def make(spatial_dims, **changes):
    torch.manual_seed(0)
    encoder = ResidualEncoder(spatial_dims, 1, (4, 6, 8, 8), (1, 1, 1, 1))
    return METHODS["spark"].build(SparkConfig(**{**TINY, **changes}), Backbone(encoder), modalities=1)


def batch(spatial_dims, size=32, count=3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, *(8,) * spatial_dims, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=(size,) * spatial_dims)
    return Batch(image, torch.ones(count, spatial_dims), torch.zeros(count), torch.arange(count))


def drawn(method, data, seed=0):
    return method.views(data, torch.Generator().manual_seed(seed))


def seen(views):
    return torch.nn.functional.interpolate(views.visible.float(), size=views.image.shape[2:]).bool()


@pytest.mark.parametrize("changes", [{}, {"fill": "zero"}, S3D], ids=["spark", "zero", "s3d"])
def test_what_is_hidden_reaches_the_loss_as_target_only(spatial_dims, changes):
    method = make(spatial_dims, **changes).eval()
    views = drawn(method, batch(spatial_dims))
    other = MaskedImage(torch.where(seen(views), views.image, 0.7), views.visible)
    first, second = method.encode(views), method.encode(other)
    for a, b in zip((*first[0], first[1]), (*second[0], second[1]), strict=True):
        assert torch.equal(a, b)
    normalise = changes != S3D
    expected = masked_patch_loss(first[1], views.image, views.visible, normalise)
    torch.testing.assert_close(method(views, 0).total, expected)
    assert method(other, 0).total != expected


@torch.no_grad()
def test_published_s3d_sees_the_rim_of_hidden_cells_and_no_more(spatial_dims):
    """S3D over ResEnc, with a level coarser than the mask: beyond the rim no bit moves."""
    image = batch(spatial_dims).image
    visible = torch.zeros(3, 1, *(4,) * spatial_dims, dtype=torch.bool)
    visible[:, :, 1:3] = True  # a slab, from voxel 8 to 24 of the first axis
    moved = {"rim": image.clone(), "inside": image.clone()}
    moved["rim"][:, :, 7] += 1
    moved["inside"][:, :, :7] += 1
    moved["inside"][:, :, 25:] += 1
    for rim in (True, False):
        torch.manual_seed(0)
        encoder = ResEncEncoder(
            spatial_dims, 1, (4, 4, 6, 6, 8), (1, 1, 1, 1, 1)
        )  # strides 1 to 16, cells of 8
        config = SparkConfig(**{**TINY, **S3D, "cell": 8, "rim": rim, "decoder_channels": (4,) * 5})
        method = METHODS["spark"].build(config, Backbone(encoder), modalities=1).eval()
        pyramid, restored = method.encode(MaskedImage(image, visible))
        assert restored.isfinite().all()
        found = {name: method.encode(MaskedImage(x, visible))[0] for name, x in moved.items()}
        assert all(torch.equal(a, b) for a, b in zip(found["inside"], pyramid, strict=True))
        assert torch.equal(found["rim"][0], pyramid[0]) is not rim


@torch.no_grad()
def test_hidden_cells_are_the_mean_grey_for_the_first_convolution(spatial_dims):
    """So that an offset of a whole image moves nothing behind a norm; with zeros it moves the rims."""
    encoder = ResNetEncoder(spatial_dims, blocks=(1, 1, 1, 1), width=4)
    image = batch(spatial_dims, size=96).image
    visible = torch.zeros(len(image), 1, *(3,) * spatial_dims, dtype=torch.bool)
    visible[:, :, *(1,) * spatial_dims] = True  # the middle: zeros beyond the border are no part of this
    distance = {}
    for fill in ("mean", "zero"):
        config = SparkConfig(**{**TINY, "cell": 32}, fill=fill)
        method = METHODS["spark"].build(config, Backbone(encoder), modalities=1)
        first, moved = (method.encode(MaskedImage(image + offset, visible))[0][0] for offset in (0, 0.5))
        distance[fill] = float((first - moved).abs().max())
    assert distance["mean"] < 1e-3
    assert distance["zero"] > 0.05


def test_the_mask_is_the_coarsest_stride_by_default(spatial_dims):
    method = make(spatial_dims, cell=None)
    views = drawn(method, batch(spatial_dims))
    assert views.visible.shape[2:] == (2,) * spatial_dims
    assert drawn(make(spatial_dims, cell=8), batch(spatial_dims)).visible.shape[2:] == (4,) * spatial_dims


def test_tokens_do_not_touch_the_encoder(spatial_dims):
    method = make(spatial_dims).eval()
    views = drawn(method, batch(spatial_dims))
    before, reconstruction = method.encode(views)
    with torch.no_grad():
        for token in method.densify.tokens:
            token.add_(1)
    after, changed = method.encode(views)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.equal(reconstruction, changed)


def test_training_it_trains_the_plain_encoder(spatial_dims):
    method = make(spatial_dims).train()
    encoder = method.backbone.encoder
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    names = [name for name, _ in method.named_parameters()]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("sparse")]  # counted once, as the encoder's
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    method(drawn(method, batch(spatial_dims)), 0).total.backward()
    optimizer.step()
    still = [name for name, value in encoder.state_dict().items() if torch.equal(value, before[name])]
    assert still == []
    assert method.backbone.state_dict().keys() == {f"encoder.{name}" for name in before}


def test_the_decoder_of_s3d_is_exported_with_the_backbone(spatial_dims):
    method = make(spatial_dims, **S3D)
    assert {name.split(".")[0] for name in method.backbone.state_dict()} == {"encoder", "decoder"}


def test_tokens_norms_and_biases_do_not_decay():
    method = make(2)
    decayed = {
        id(p) for group in parameter_groups(method, 0.1) if group["weight_decay"] for p in group["params"]
    }
    for name, parameter in method.named_parameters():
        kernel = name.endswith("weight") and parameter.ndim > 1
        assert (id(parameter) in decayed) == kernel, name


def test_explained_is_0_for_a_constant_and_1_for_the_image(spatial_dims):
    method = make(spatial_dims).eval()
    views = drawn(method, batch(spatial_dims))
    assert method(views, 0).metrics["explained"] < 1
    for changes, guess in (({}, torch.zeros_like), ({"normalise": False}, None)):
        method = make(spatial_dims, **changes).eval()
        hidden = views.image[~seen(views)].mean()
        constant = guess(views.image) if guess else torch.full_like(views.image, float(hidden))
        method.reconstruct.forward = lambda image, pyramid, constant=constant: constant
        assert method(views, 0).metrics["explained"].abs() < 1e-4
    method.reconstruct.forward = lambda image, pyramid: views.image
    assert method(views, 0).metrics["explained"] == 1


def test_overfits_a_tiny_batch(spatial_dims):
    method = make(spatial_dims, turn_p=0).train()
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
    assert losses.metrics["explained"] > 0.3
    assert losses.metrics["feature_spread"] > 0
