from __future__ import annotations

import pytest
import torch

from medssl.nets.dense import DenseFeatures, fit_projection
from medssl.nets.encoders import ResidualEncoder


@pytest.fixture(params=[2, 3])
def parts(request):
    torch.manual_seed(request.param)
    encoder = ResidualEncoder(request.param, 1, (4, 6, 8, 10), (1, 1, 1, 1)).eval()
    with torch.no_grad():
        pyramid = encoder(torch.rand(2, 1, *(48, 32, 64)[: request.param]))
    return encoder, DenseFeatures(encoder.levels, out_channels=5), pyramid


def test_concatenation_uses_levels_of_stride_four_and_more(parts):
    _, dense, pyramid = parts
    assert dense.in_channels == 6 + 8 + 10
    features = dense.concatenated(pyramid)
    assert features.shape == (2, 24, *pyramid[1].shape[2:])
    norms = features[:, :6].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_projecting_by_level_equals_projecting_the_concatenation(parts):
    _, dense, pyramid = parts
    dense.weight.copy_(torch.randn_like(dense.weight))
    dense.mean.copy_(torch.randn_like(dense.mean))
    concatenated = dense.concatenated(pyramid).flatten(2).transpose(1, 2)
    expected = (concatenated - dense.mean) @ dense.weight.T
    got = dense(pyramid).flatten(2).transpose(1, 2)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_projection_keeps_what_two_views_agree_on(parts):
    _, dense, _ = parts
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(24, 24, generator=generator)
    stable = torch.randn(4000, 5, generator=generator)
    views = [
        torch.cat([stable, 3 * torch.randn(4000, 19, generator=generator)], 1) @ mixing + 3 for _ in range(2)
    ]
    fit_projection(dense, *views, ridge=1e-6)
    first, second = ((x - dense.mean) @ dense.weight.T for x in views)
    torch.testing.assert_close(first, second, atol=0.05, rtol=0)
    torch.testing.assert_close(first.square().sum(1).mean(), torch.tensor(1.0), atol=1e-2, rtol=0)
    # five channels are enough to read the five stable sources off linearly
    fitted = first @ torch.linalg.lstsq(first, stable).solution
    assert (fitted - stable).square().mean() < 0.01


def test_projection_of_a_constant_difference_is_principal_components(parts):
    # with white noise between the views, the discriminants are the principal axes
    _, dense, _ = parts
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(24, 24, generator=generator)).Q
    x = torch.randn(20000, 24, generator=generator) * torch.linspace(3, 0.1, 24) @ axes.T
    views = [x + 0.1 * torch.randn(x.shape, generator=generator) for _ in range(2)]
    fit_projection(dense, *views)
    cosines = torch.nn.functional.normalize(dense.weight, dim=1) @ axes[:, :5]
    torch.testing.assert_close(cosines.abs(), torch.eye(5), atol=0.15, rtol=0)


def test_too_few_cells_are_refused(parts):
    _, dense, _ = parts
    with pytest.raises(ValueError, match="too few"):
        fit_projection(dense, torch.rand(24, 24), torch.rand(24, 24))
