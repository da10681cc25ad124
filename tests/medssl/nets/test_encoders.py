from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.fx
from monai.networks.layers.drop_path import DropPath

from medssl.nets.encoders import ENCODERS, ResidualEncoder, build_encoder, restore_encoder, set_drop_path


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param


def randomized(encoder):
    """Running statistics away from their defaults, so that evaluation mode is really tested."""
    generator = torch.Generator().manual_seed(3)
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return encoder.eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_levels_declare_what_forward_gives(name, spatial_dims):
    size = (64, 96, 32)[:spatial_dims]
    with torch.device("meta"):  # shapes without the arithmetic
        encoder = build_encoder(name, spatial_dims, in_channels=2).eval()
        pyramid = encoder(torch.rand(2, 2, *size))
    assert len(pyramid) == len(encoder.levels) == len(encoder.stages) == len(encoder.halos)
    for feature, level in zip(pyramid, encoder.levels, strict=True):
        expected = tuple(n // s for n, s in zip(size, level.stride, strict=True))
        assert feature.shape == (2, level.channels, *expected)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_can_be_built_again_from_its_config(name):
    with torch.device("meta"):
        encoder = build_encoder(name, 2)
        again = restore_encoder({"name": name, **encoder.config})
    assert type(again) is type(encoder)
    shapes = [{key: value.shape for key, value in e.state_dict().items()} for e in (encoder, again)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", ENCODERS)
def test_every_parameter_belongs_to_one_stage(name):
    with torch.device("meta"):
        encoder = build_encoder(name, 2)
    for key, _ in encoder.named_parameters():
        owners = [names for names in encoder.stage_names if key.startswith(tuple(names))]
        assert len(owners) == 1, key


def test_unknown_architecture_lists_the_known():
    with pytest.raises(ValueError, match=r"'vit'.*residual, genesis"):
        restore_encoder({"architecture": "vit", "spatial_dims": 2})


def test_flips_do_not_move_cells(spatial_dims):
    # A flip of the input flips the cells of every level exactly: with kernels flipped too, values agree.
    encoder = randomized(ResidualEncoder(spatial_dims, 1, (4, 6, 6, 8), (1, 1, 1, 1)))
    mirrored = randomized(ResidualEncoder(spatial_dims, 1, (4, 6, 6, 8), (1, 1, 1, 1)))
    mirrored.load_state_dict(
        {k: v.flip(-1) if v.ndim == spatial_dims + 2 else v for k, v in encoder.state_dict().items()}
    )
    x = torch.rand(1, 1, *(32,) * spatial_dims)
    with torch.inference_mode():
        for feature, other in zip(encoder(x), mirrored(x.flip(-1)), strict=True):
            torch.testing.assert_close(feature, other.flip(-1), atol=1e-5, rtol=1e-4)


def test_halo_is_the_receptive_radius_of_a_stage(spatial_dims):
    encoder = randomized(ResidualEncoder(spatial_dims, 1, (4, 6, 6, 8), (1, 2, 1, 1)))
    for index, stage in enumerate(encoder.stages):
        channels = 1 if index == 0 else encoder.levels[index - 1].channels
        halo = encoder.halos[index][0]
        x = torch.rand(1, channels, *(8 * halo,) * spatial_dims)
        start = 2 * halo
        changed = x.clone()
        changed[..., : start - halo] += 1  # beyond the halo of the cells from `start` on
        with torch.inference_mode():
            a, b = stage(x), stage(changed)
        torch.testing.assert_close(a[..., start // 2 :], b[..., start // 2 :])
        assert not torch.allclose(a[..., start // 2 - 1], b[..., start // 2 - 1]), (
            "the halo is larger than needed"
        )


def test_stride_per_axis():
    encoder = ResidualEncoder(3, 1, (4, 4, 4), (1, 1, 1), strides=[(1, 2, 2), (2, 2, 2), (2, 2, 2)])
    assert [level.stride for level in encoder.levels] == [(1, 2, 2), (2, 4, 4), (4, 8, 8)]
    assert encoder.halos[0] == (2, 4, 4)
    assert encoder(torch.rand(1, 1, 8, 16, 16))[0].shape == (1, 4, 8, 8, 8)


@pytest.mark.parametrize(("padding", "is_felt"), [("replicate", False), ("zeros", True)])
def test_replicate_padding_hides_the_border(padding, is_felt, spatial_dims):
    # In an image without content only the border can tell cells apart.
    encoder = randomized(ResidualEncoder(spatial_dims, 1, (4, 6, 6, 8), (1, 1, 1, 1), padding=padding))
    with torch.inference_mode():
        spread = max(
            float(level.flatten(2).std(dim=2).max())
            for level in encoder(torch.ones(1, 1, *(64,) * spatial_dims))
        )
    assert (spread > 1e-3) == is_felt


@pytest.mark.parametrize(("name", "expected"), [("tiny", "zeros"), ("genesis", None)])
def test_a_padding_is_for_the_residual_family(name, expected):
    with torch.device("meta"):
        assert build_encoder(name, 2, padding="zeros").config.get("padding") == expected


def test_weights_without_a_padding_in_their_header_have_zeros():
    assert (
        restore_encoder({"spatial_dims": 2, "channels": (4, 6), "blocks": (1, 1)}).config["padding"]
        == "zeros"
    )


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="tiny, small, base"):
        build_encoder("huge", 3)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="equal lengths"):
        ResidualEncoder(3, 1, (4, 8), (1, 1, 1))


@pytest.mark.parametrize("architecture", ["genesis", "resnet"])
def test_stages_in_turn_are_the_forward_pass(architecture, spatial_dims):
    encoder = restore_encoder({"architecture": architecture, "spatial_dims": spatial_dims, "width": 2}).eval()
    torch.fx.symbolic_trace(encoder)  # what makes encoders sparse records the forward pass
    x = torch.rand(1, 1, *(32,) * spatial_dims)
    with torch.inference_mode():
        pyramid = encoder(x)
        for stage, level in zip(encoder.stages, pyramid, strict=True):
            x = stage(x)
            assert torch.equal(x, level)


@pytest.mark.parametrize("name", ["resnet50", "resenc-l"])
def test_drop_path_leaves_out_branches_of_the_deeper_blocks_while_training(name):
    encoder = build_encoder(name, 2)
    rates = [module.drop_prob for module in encoder.modules() if isinstance(module, DropPath)]
    assert rates
    assert set(rates) == {0.0}
    set_drop_path(encoder, 0.4)
    rates = [module.drop_prob for module in encoder.modules() if isinstance(module, DropPath)]
    assert (rates[0], rates[-1]) == (0, 0.4)
    assert np.ptp(np.diff(rates)) < 1e-9
    x = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(encoder.eval()(x)[-1], encoder(x)[-1], rtol=0, atol=0)
    encoder.train()
    assert not torch.equal(encoder(x)[-1], encoder(x)[-1])
    restored = restore_encoder(encoder.config)
    assert {m.drop_prob for m in restored.modules() if isinstance(m, DropPath)} == {0.0}


def test_drop_path_is_refused_where_nothing_can_be_left_out():
    with pytest.raises(ValueError, match="resnet50 and resenc-l"):
        set_drop_path(build_encoder("tiny", 2), 0.1)
    set_drop_path(build_encoder("tiny", 2), 0)
