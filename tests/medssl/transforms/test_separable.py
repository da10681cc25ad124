from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from medssl.transforms.separable import apply_separable, gaussian_matrix, gaussian_smooth


def test_applies_each_matrix_along_its_axis(image, generator):
    image = image.double()
    matrices = [
        torch.randn(3 + d, size, generator=generator).double() for d, size in enumerate(image.shape[2:])
    ]
    expected = image
    for axis, matrix in enumerate(matrices, start=2):
        expected = torch.tensordot(expected, matrix, dims=([axis], [1])).movedim(-1, axis)
    torch.testing.assert_close(apply_separable(image, matrices), expected)
    one_each = [matrix.expand(len(image), *matrix.shape) for matrix in matrices]
    torch.testing.assert_close(apply_separable(image, one_each), expected)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5])
def test_smoothing_matches_scipy(image, sigma):
    expected = ndimage.gaussian_filter(
        image.double().numpy(), sigma, mode="reflect", truncate=8, axes=range(2, image.ndim)
    )
    np.testing.assert_allclose(gaussian_smooth(image.double(), sigma).numpy(), expected, atol=1e-10)


def test_each_sample_and_axis_has_its_own_sigma(image, generator):
    axes = image.ndim - 2
    sigmas = torch.rand(len(image), axes, generator=generator) * 2
    together = gaussian_smooth(image, sigmas)
    for i, row in enumerate(sigmas):
        torch.testing.assert_close(together[i : i + 1], gaussian_smooth(image[i : i + 1], row.tolist()))


def test_zero_sigma_is_the_identity(image):
    assert torch.equal(gaussian_smooth(image, 0.0), image)


def test_matrix_is_symmetric_with_unit_rows():
    matrix = gaussian_matrix(11, torch.tensor([0.5, 3.0], dtype=torch.float64))
    torch.testing.assert_close(matrix, matrix.mT)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(2, 11).double())
