from __future__ import annotations

import pytest
import torch
from torch import nn

from medssl.nets.backbone import Backbone
from medssl.nets.encoders import ResidualEncoder
from medssl.nets.reconstruction import Densify, LightReconstruction, build_reconstruction
from medssl.nets.sparse_layers import VisibleCells, hide
from medssl.nets.sparse_norms import batch_norm
from medssl.protocols import FeatureLevel


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param


def parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def levels(spatial_dims, channels, strides):
    return [FeatureLevel(c, (s,) * spatial_dims) for c, s in zip(channels, strides, strict=True)]


def test_sizes_over_resnet50_are_the_published_ones():
    pyramid = levels(2, (256, 512, 1024, 2048), (4, 8, 16, 32))
    with torch.device("meta"):
        decoder, densify = LightReconstruction(2, 3, pyramid, width=768), Densify(2, pyramid)
    assert parameters(decoder.blocks, decoder.output) == 23_183_115
    per_level = [
        parameters(norm, projection) + token.numel()
        for norm, projection, token in zip(
            densify.norms, reversed(decoder.projections), densify.tokens, strict=True
        )
    ]
    assert per_level == [222_048, 886_464, 3_542_400, 1_579_776]
    assert parameters(densify.tokens) == 3840
    assert decoder.skips == (3, 2, 1, 0, None)
    widths = [block.up.in_channels for block in decoder.blocks]
    assert [*widths, decoder.output.in_channels] == [768, 384, 192, 96, 48, 24]


def test_the_coarsest_level_needs_no_projection_where_widths_agree():
    decoder = LightReconstruction(2, 1, levels(2, (32, 64), (2, 4)), width=64)
    assert isinstance(decoder.projections[0], nn.Identity)
    assert decoder.projections[1].kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("channels", "strides"),
    [((4, 6), (4, 8)), ((4, 6, 8), (1, 2, 4)), ((4, 6), (2, 8)), ((5,), (4,))],
)
def test_any_powers_of_two_lead_back_to_the_image(spatial_dims, channels, strides):
    decoder = LightReconstruction(spatial_dims, 2, levels(spatial_dims, channels, strides), width=64)
    pyramid = [torch.rand(1, c, *(16 // s,) * spatial_dims) for c, s in zip(channels, strides, strict=True)]
    result = decoder(torch.rand(1, 2, *(16,) * spatial_dims), pyramid)
    assert result.shape == (1, 2, *(16,) * spatial_dims)
    grads = torch.autograd.grad(result.sum(), list(decoder.parameters()))
    assert all(grad.isfinite().all() for grad in grads)


def test_a_stride_per_axis_leads_back_to_the_image():
    pyramid = [FeatureLevel(4, (1, 2, 2)), FeatureLevel(6, (2, 4, 4))]
    decoder = LightReconstruction(3, 1, pyramid, width=64)
    maps = [torch.rand(1, 4, 4, 8, 8), torch.rand(1, 6, 2, 4, 4)]
    assert decoder(torch.rand(1, 1, 4, 16, 16), maps).shape == (1, 1, 4, 16, 16)


def test_impossible_decoders_are_refused():
    with pytest.raises(ValueError, match="powers of two"):
        LightReconstruction(2, 1, levels(2, (4,), (6,)))
    with pytest.raises(ValueError, match="cannot be halved"):
        LightReconstruction(2, 1, levels(2, (4,), (8,)), width=4)


def test_tokens_stand_in_hidden_cells_and_only_there(spatial_dims):
    torch.manual_seed(0)
    cells = VisibleCells(torch.rand(2, 1, *(2,) * spatial_dims) < 0.5)
    pyramid = [hide(torch.randn(2, c, *(s,) * spatial_dims), cells) for c, s in ((3, 8), (4, 4))]
    densify = Densify(spatial_dims, levels(spatial_dims, (3, 4), (2, 4)))
    for level, norm, token, dense in zip(
        pyramid, densify.norms, densify.tokens, densify(pyramid, cells), strict=True
    ):
        seen = cells.mask(level).bool().expand_as(level)
        assert torch.equal(dense[seen], batch_norm(norm, level, cells)[seen])
        filled = token.view(1, -1, *(1,) * spatial_dims).expand_as(level)
        assert torch.equal(dense[~seen], filled[~seen])
        assert token.abs().max() <= 0.02


@pytest.mark.parametrize("visible", [True, False])
def test_a_token_learns_only_from_hidden_cells(visible):
    cells = VisibleCells(torch.tensor([[[[True, visible]]]]))
    densify = Densify(2, levels(2, (3,), (2,)), "instance")
    dense = densify([hide(torch.randn(1, 3, 2, 4), cells)], cells)[0]
    (grad,) = torch.autograd.grad(dense.pow(2).sum(), [densify.tokens[0]])
    assert bool((grad != 0).all()) is not visible
    assert bool((grad == 0).all()) is visible


def test_without_norm_seen_cells_stay_as_they_are():
    cells = VisibleCells(torch.tensor([[[[True, False]]]]))
    level = hide(torch.randn(1, 3, 2, 4), cells)
    dense = Densify(2, levels(2, (3,), (2,)), "none")([level], cells)[0]
    assert torch.equal(dense[..., :2], level[..., :2])


def test_the_pyramid_form_shares_its_decoder_with_the_backbone(spatial_dims):
    encoder = ResidualEncoder(spatial_dims, 1, (4, 6), (1, 1))
    backbone = Backbone(encoder)
    reconstruct = build_reconstruction(backbone, "pyramid", width=64, channels=(4, 6))
    assert reconstruct.decoder is backbone.decoder
    x = torch.rand(1, 1, *(16,) * spatial_dims)
    assert reconstruct(x, encoder(x)).shape == x.shape
    for level, projection in zip(encoder.levels, reconstruct.projections, strict=True):
        assert projection.weight.shape == (level.channels, level.channels, *(3,) * spatial_dims)


def test_convolutions_start_with_the_published_spread(spatial_dims):
    torch.manual_seed(0)
    decoder = LightReconstruction(spatial_dims, 1, levels(spatial_dims, (8, 16), (4, 8)), width=64)
    weights = [m.weight.flatten() for m in decoder.blocks.modules() if type(m) in {nn.Conv2d, nn.Conv3d}]
    assert torch.cat(weights).std().item() == pytest.approx(0.02, rel=0.05)
