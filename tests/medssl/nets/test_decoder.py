from __future__ import annotations

import pytest
import torch

from medssl.nets.decoder import PyramidDecoder
from medssl.nets.dense import DenseFeatures, resize
from medssl.nets.encoders import ResidualEncoder
from medssl.nets.segmentation import SegmentationNetwork


def encoder(spatial_dims: int, strides: object = None) -> ResidualEncoder:
    torch.manual_seed(0)
    return ResidualEncoder(spatial_dims, 1, (4, 6, 8, 10), (1, 1, 1, 1), strides)  # type: ignore[arg-type]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_decoded_levels_have_the_declared_shapes(spatial_dims):
    net = encoder(spatial_dims)
    decoder = PyramidDecoder(spatial_dims, 1, net.levels, (3, 4, 5, 6))
    image = torch.rand(2, 1, *(32, 48, 16)[:spatial_dims])
    decoded = decoder(image, net(image))
    assert [level.stride[0] for level in decoder.levels] == [1, 2, 4, 8]
    for level, found in zip(decoder.levels, decoded, strict=True):
        expected = tuple(n // s for n, s in zip(image.shape[2:], level.stride, strict=True))
        assert found.shape == (2, level.channels, *expected)


def test_anisotropic_strides_reach_full_resolution():
    net = encoder(3, [(1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)])
    network = SegmentationNetwork(net, 3, (3, 4, 5, 6))
    assert network.multiple == (8, 16, 16)
    assert network(torch.rand(1, 1, 8, 32, 16)).shape == (1, 3, 8, 32, 16)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_every_parameter_learns_and_odd_sizes_fit(spatial_dims):
    network = SegmentationNetwork(encoder(spatial_dims), 3, (3, 4, 5, 6), supervised_levels=3)
    shape = (19, 33, 21)[:spatial_dims]
    logits = network(torch.rand(2, 1, *shape))
    assert logits.shape == (2, 3, *shape)
    x = torch.rand(2, 1, *(32,) * spatial_dims)
    full = network.classify(x, network.backbone(x))
    assert [tuple(x.shape[2:]) for x in full] == [(32,) * spatial_dims] * 3
    sum(x.square().mean() for x in full).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert {key.split(".")[0] for key in network.state_dict()} == {"backbone", "segmentation"}


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_flipping_the_image_of_a_symmetric_network_flips_the_logits(spatial_dims):
    """Cells cover the same voxels after decoding: no half-cell shift anywhere on the way up."""
    network = SegmentationNetwork(encoder(spatial_dims), 2, (3, 4, 5, 6)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 2:
                axes = tuple(range(2, parameter.ndim))
                parameter.copy_((parameter + parameter.flip(axes)) / 2)
        x = torch.rand(1, 1, *(32,) * spatial_dims)
        axes = tuple(range(2, x.ndim))
        torch.testing.assert_close(network(x).flip(axes), network(x.flip(axes)), rtol=1e-4, atol=1e-5)


def test_channels_must_fit_the_levels():
    for channels in ((3, 4, 5, 6, 7), ()):
        with pytest.raises(ValueError, match="4 levels"):
            PyramidDecoder(3, 1, encoder(3).levels, channels)


def test_the_last_channels_stand_for_deeper_levels():
    decoder = PyramidDecoder(2, 1, encoder(2).levels, (3, 4))
    assert decoder.config == {"channels": [3, 4, 4, 4]}
    assert [level.channels for level in decoder.levels] == [3, 4, 4, 4]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_with_a_linear_part_the_network_begins_as_the_probe(spatial_dims):
    net = encoder(spatial_dims).eval()
    dense = DenseFeatures(net.levels, 8)
    dense.weight.copy_(torch.randn(8, dense.in_channels))
    dense.mean.copy_(torch.rand(dense.in_channels) * 0.1)
    weight, bias = torch.randn(3, 10), torch.randn(3)
    network = SegmentationNetwork(net, 3, (3, 4, 5, 6), has_linear=True).eval()
    network.linear.start_from(dense, weight, bias)
    x = torch.rand(2, 1, *(32,) * spatial_dims)
    features = resize(dense(net(x)), x.shape[2:])
    blurred = network.linear.smoothed(x)
    inputs = torch.cat([features, x, blurred], dim=1)  # what the probe sees of every voxel
    shape = (1, 3, *(1,) * spatial_dims)
    expected = torch.einsum("kc,bcn->bkn", weight, inputs.flatten(2)).view(2, 3, *x.shape[2:]) + bias.view(
        shape
    )
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)
    inside = (..., *(slice(4, -4),) * spatial_dims)
    noise = torch.randn_like(x)
    assert 0.05 < float(network.linear.smoothed(noise)[inside].std()) < 0.35, "an average over neighbours"
    torch.testing.assert_close(network.linear.smoothed(torch.ones_like(x)), torch.ones_like(x))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_decoding_may_stop_early(spatial_dims):
    net = encoder(spatial_dims)
    decoder = PyramidDecoder(spatial_dims, 1, net.levels, (3, 4, 5, 6))
    x = torch.rand(2, 1, *(16,) * spatial_dims)
    pyramid = net(x)
    whole = decoder(x, pyramid)
    for finest in range(4):
        part = decoder(x, pyramid, finest=finest)
        assert [level.shape for level in part] == [level.shape for level in whole[finest:]]
        for ours, theirs in zip(part, whole[finest:], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
