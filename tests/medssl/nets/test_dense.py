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


def test_projection_decorrelates_and_scales(parts):
    _, dense, _ = parts
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 24, generator=generator) @ torch.randn(24, 24, generator=generator) + 3
    for whitening in (0.0, 0.5, 1.0):
        fit_projection(dense, [x[:900], x[900:]], whitening)
        projected = (x - dense.mean) @ dense.weight.T
        covariance = projected.T @ projected / len(x)
        assert (covariance - covariance.diag().diag()).abs().max() < 1e-4
        assert covariance.trace() == pytest.approx(1, abs=1e-4)
        variances = covariance.diag()
        assert (variances.diff() <= 1e-6).all()
        if whitening == 1.0:
            torch.testing.assert_close(variances, torch.full((5,), 0.2), atol=1e-4, rtol=1e-3)


def test_too_few_cells_are_refused(parts):
    _, dense, _ = parts
    with pytest.raises(ValueError, match="too few"):
        fit_projection(dense, [torch.rand(5, 24)])
