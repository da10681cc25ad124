from __future__ import annotations

import pytest
import torch

from medssl.config.models_genesis import ModelsGenesisConfig
from medssl.errors import InputError
from medssl.methods import METHODS
from medssl.methods.models_genesis import ModelsGenesis
from medssl.nets.backbone import Backbone
from medssl.nets.decoder import PyramidDecoder
from medssl.nets.encoders import ResidualEncoder
from medssl.nets.unet import GenesisEncoder
from medssl.protocols import Batch


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param


def make(spatial_dims, encoder="genesis", **changes) -> ModelsGenesis:
    torch.manual_seed(0)
    built = (
        GenesisEncoder(spatial_dims, width=2)
        if encoder == "genesis"
        else ResidualEncoder(spatial_dims, 1, (4, 6, 8, 8), (1, 1, 1, 1))
    )
    settings = {"decoder_channels": (4, 6, 8, 8), **changes}
    return METHODS["models-genesis"].build(ModelsGenesisConfig(**settings), Backbone(built), modalities=2)


def batch(spatial_dims, size=32, count=4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, *(8,) * spatial_dims, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=(size,) * spatial_dims)
    return Batch(image, torch.ones(count, spatial_dims), torch.arange(count) % 2, torch.arange(count))


def drawn(method, data, seed=0):
    return method.views(data, torch.Generator().manual_seed(seed))


def test_views_depend_on_the_generator_alone(spatial_dims):
    method, data = make(spatial_dims), batch(spatial_dims)
    a, b, c = (drawn(method, data, seed) for seed in (1, 1, 2))
    assert torch.equal(a.corrupted, b.corrupted)
    assert torch.equal(a.target, b.target)
    assert not torch.equal(a.corrupted, c.corrupted)


def test_without_corruption_image_and_target_are_the_crop(spatial_dims):
    method, data = make(spatial_dims, flip_p=0, shuffle_p=0, curve_p=0, paint_p=0), batch(spatial_dims)
    views = drawn(method, data)
    assert torch.equal(views.corrupted, data.image)
    assert torch.equal(views.target, data.image)


def test_a_cube_of_the_published_shape_is_cut_at_random(spatial_dims):
    shape = (16, 32, 24)[:spatial_dims]
    calm = {"flip_p": 0, "shuffle_p": 0, "curve_p": 0, "paint_p": 0}
    method = make(spatial_dims, shape=shape, **calm)
    ramp = torch.arange(32.0).view(-1, *(1,) * (spatial_dims - 1)).expand((32,) * spatial_dims) / 31
    data = Batch(
        ramp.expand(60, 1, *ramp.shape), torch.ones(60, spatial_dims), torch.zeros(60), torch.arange(60)
    )
    target = drawn(method, data).target
    assert target.shape == (60, 1, *shape)
    rows = (target.flatten(3)[:, 0, :, 0] * 31).round().long() if spatial_dims == 3 else None
    rows = (target[:, 0, :, 0] * 31).round().long() if rows is None else rows
    assert torch.equal(rows, rows[:, :1] + torch.arange(16))
    assert set(rows[:, 0].tolist()) >= {0, 16}
    assert rows[:, 0].max() <= 16


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"shape": (64, 64, 64)}, "does not lie"), ({"shape": (16, 12, 16)}, "no multiple of .* stride")],
)
def test_impossible_cubes_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        drawn(make(3, **changes), batch(3))


def test_a_decoder_with_more_levels_than_the_encoder_is_refused():
    with pytest.raises(InputError, match=r"decoder_channels .* only 4 levels"):
        make(2, "residual", decoder_channels=(4, 4, 4, 4, 4))


def test_loss_is_the_squared_error_over_all_voxels(spatial_dims):
    method = make(spatial_dims).eval()
    views = drawn(method, batch(spatial_dims))
    losses = method(views, 0)
    restored, _ = method.restore(views.corrupted)
    assert restored.shape == views.target.shape
    assert 0 < restored.min() < restored.max() < 1
    error = (restored - views.target).square().mean()
    torch.testing.assert_close(losses.total, error)
    damage = (views.corrupted - views.target).square().mean()
    torch.testing.assert_close(losses.metrics["gain"], 1 - error.detach() / damage)


def test_a_constant_output_explains_nothing_and_equal_features_do_not_spread(spatial_dims):
    method = make(spatial_dims).eval()
    views = drawn(method, batch(spatial_dims))
    with torch.no_grad():
        method.out_tr.final_conv.weight.zero_()
        mean = views.target.mean()
        method.out_tr.final_conv.bias.fill_(torch.log(mean / (1 - mean)))
    same = type(views)(views.corrupted[:1].expand_as(views.corrupted), views.target)
    metrics = method(same, 0).metrics
    assert metrics["explained"].abs() < 1e-5
    assert metrics["feature_spread"] < 1e-5


@pytest.mark.parametrize(("encoder", "factor"), [("genesis", 0.3), ("residual", 0.85)])
def test_the_decoder_fits_the_encoder_and_overfits_a_tiny_batch(spatial_dims, encoder, factor):
    method = make(spatial_dims, encoder, curve_p=0, shuffle_p=0, inner_p=1, decoder_channels=(8, 8, 8, 8))
    assert isinstance(method.train().backbone.decoder, PyramidDecoder) == (encoder == "residual")
    views = drawn(method, batch(spatial_dims, size=32, count=2))
    optimizer = torch.optim.Adam(method.parameters(), lr=2e-2)
    history = []
    for step in range(30):
        losses = method(views, step)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append(float(losses.total.detach()))
    assert history[-1] < factor * history[0]
    assert losses.metrics["feature_spread"] > 0.02
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("compatible", [True, False])
def test_only_the_compatible_mode_evaluates_with_batch_statistics(spatial_dims, compatible):
    method, x = make(spatial_dims, compatible=compatible), batch(spatial_dims).image
    with torch.no_grad():
        training = method.train().restore(x)[0]
        evaluation = method.eval().restore(x)[0]
        alone = method.restore(x[:1])[0]
    assert torch.allclose(training, evaluation) == compatible
    assert torch.allclose(alone, evaluation[:1], atol=1e-6) != compatible


def test_the_compatible_mode_never_flips_z():
    calm = {"flip_p": 0.9, "shuffle_p": 0, "curve_p": 0, "paint_p": 0, "compatible": True}
    ramp = torch.linspace(0, 1, 16).view(-1, 1, 1).expand(16, 16, 16)
    data = Batch(ramp.expand(20, 1, 16, 16, 16), torch.ones(20, 3), torch.zeros(20), torch.arange(20))
    assert torch.equal(drawn(make(3, **calm), data).target, data.image)


def test_parameter_names_are_the_published_ones_below_two_prefixes():
    method = make(3)
    names = {key.split(".", 2)[2] for key in method.state_dict() if key.startswith("backbone.")}
    assert "down_tr512.ops.1.bn1.running_var" in names
    assert "up_tr64.up_conv.weight" in names
    assert method.exported().keys() == {"out_tr"}
