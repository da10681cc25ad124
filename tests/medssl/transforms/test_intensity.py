from __future__ import annotations

import pytest
import torch

from medssl.transforms import intensity


def per_sample(values, x):
    return torch.tensor(values).reshape(-1, *(1,) * (x.ndim - 1))


def test_window_stretches_and_clips(image):
    low, high = [0.0, 0.2, 0.0, -0.1], [1.0, 0.7, 0.5, 1.0]
    out = intensity.window(image, torch.tensor(low), torch.tensor(high))
    expected = ((image - per_sample(low, image)) / (per_sample(high, image) - per_sample(low, image))).clamp(
        0, 1
    )
    torch.testing.assert_close(out, expected)
    assert torch.equal(out[0], image[0])


def test_gamma(image):
    exponent = [1.0, 2.0, 0.5, 1.0]
    out = intensity.gamma(image, torch.tensor(exponent))
    torch.testing.assert_close(out, image ** per_sample(exponent, image), atol=1e-3, rtol=1e-5)
    assert torch.equal(out[[0, 3]], image[[0, 3]])


def test_linear(image):
    out = intensity.linear(image, torch.tensor([1.0, 2.0, 1.0, 0.5]), torch.tensor([0.0, 0.0, 0.1, -0.2]))
    assert torch.equal(out[0], image[0])
    torch.testing.assert_close(out[1], 2 * image[1])
    torch.testing.assert_close(out[2], image[2] + 0.1)
    torch.testing.assert_close(out[3], 0.5 * image[3] - 0.2)


def test_noise_has_the_asked_deviation_and_is_independent():
    flat = torch.full((3, 1, 40, 40), 0.5)
    out = intensity.gaussian_noise(flat, torch.tensor([0.0, 0.05, 0.2]), seed=3)
    assert torch.equal(out[0], flat[0])
    assert out[1].std().item() == pytest.approx(0.05, rel=0.1)
    assert out[2].std().item() == pytest.approx(0.2, rel=0.1)
    correlation = torch.corrcoef(torch.stack([out[1].flatten(), out[2].flatten()]))[0, 1]
    assert abs(correlation.item()) < 0.1
    assert torch.equal(out, intensity.gaussian_noise(flat, torch.tensor([0.0, 0.05, 0.2]), seed=3))


def test_blur_spreads_a_point_by_its_sigma():
    point = torch.zeros(2, 1, 41, 41)
    point[:, :, 20, 20] = 1
    out = intensity.gaussian_blur(point, torch.tensor([0.0, 2.0]))
    assert torch.equal(out[0], point[0])
    place = torch.arange(41.0) - 20
    assert out[1, 0].sum().item() == pytest.approx(1, abs=1e-5)
    assert (out[1, 0].sum(0) * place**2).sum().item() == pytest.approx(4, rel=1e-3)


def test_bias_field_is_smooth_positive_and_neutral_at_zero(image, generator):
    orders = (3,) * (image.ndim - 2)
    coefficients = torch.randn(4, 1, *orders, generator=generator)
    out = intensity.bias_field(torch.ones_like(image), coefficients, torch.tensor([0.0, 0.1, 0.3, 0.0]))
    assert torch.equal(out[[0, 3]], torch.ones_like(out[[0, 3]]))
    for row, strength in ((1, 0.1), (2, 0.3)):
        field = out[row].log()
        assert field.std(correction=0).item() == pytest.approx(strength, rel=1e-3)
        assert field.mean().item() == pytest.approx(0, abs=1e-5)
        assert field.diff(dim=-1).abs().max() < 3 * strength


def test_bias_field_does_not_depend_on_resolution(generator):
    coefficients, strength = torch.randn(1, 1, 3, 3, generator=generator), torch.tensor([0.3])
    fine = intensity.bias_field(torch.ones(1, 1, 60, 60), coefficients, strength)
    coarse = intensity.bias_field(torch.ones(1, 1, 20, 20), coefficients, strength)
    torch.testing.assert_close(fine[..., 1::3, 1::3], coarse, atol=0.02, rtol=0)


def test_tone_curve_interpolates_linearly():
    curve = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.5, 0.0]])
    x = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, 2.0]).expand(2, 1, 1, 6)
    out = intensity.tone_curve(x, curve, torch.tensor([True, True]))
    torch.testing.assert_close(out[0].flatten(), torch.tensor([0.0, 0.5, 1.0, 0.75, 0.5, 0.5]))
    torch.testing.assert_close(out[1].flatten(), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0, 0.0]))
    assert torch.equal(intensity.tone_curve(x, curve, torch.tensor([False, False])), x)


def test_gradients_flow(image):
    x = image.requires_grad_()
    y = intensity.gamma(x, torch.full((4,), 0.7))
    y = intensity.tone_curve(y, torch.tensor([[0.0, 0.7, 1.0]]).expand(4, 3), torch.ones(4, dtype=torch.bool))
    y = intensity.gaussian_blur(y, torch.full((4,), 0.8))
    y.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad != 0).float().mean() > 0.99
