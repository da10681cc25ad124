"""Intensity transforms of (B, C, *S) images in [0, 1]: they change values and never move voxels.

Every function takes one parameter per sample; its neutral parameter leaves the sample exactly as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from medssl.transforms.draws import seeded
from medssl.transforms.separable import apply_separable, gaussian_smooth


def window(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Stretch [low, high] to [0, 1] and clip: another CT window.

    Args:
        x: (B, C, *S).
        low: (B,) value that becomes 0; 0 is neutral.
        high: (B,) value that becomes 1; 1 is neutral.
    """
    low, high = _per_sample(low, x), _per_sample(high, x)
    return ((x - low) / (high - low)).clamp(0, 1)


def gamma(x: Tensor, exponent: Tensor) -> Tensor:
    """x ** exponent, after clipping to [0, 1].

    Args:
        x: (B, C, *S).
        exponent: (B,) > 0; 1 is neutral.
    """

    def power(rows: Tensor, exponent: Tensor) -> Tensor:
        # The floor keeps the gradient at 0 finite for exponents below one.
        return rows.clamp(1e-6, 1) ** _per_sample(exponent, rows)

    return _where(exponent != 1, power, x, exponent)


def linear(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale * x + shift.

    Args:
        x: (B, C, *S).
        scale: (B,); 1 is neutral.
        shift: (B,); 0 is neutral.
    """
    return x * _per_sample(scale, x) + _per_sample(shift, x)


def gaussian_noise(x: Tensor, sd: Tensor, seed: int) -> Tensor:
    """Add independent normal noise, drawn on the image's device.

    Args:
        x: (B, C, *S).
        sd: (B,) standard deviation; 0 is neutral.
        seed: of the noise.
    """

    def add(rows: Tensor, sd: Tensor) -> Tensor:
        noise = torch.randn(
            rows.shape, generator=seeded(seed, rows.device), device=rows.device, dtype=rows.dtype
        )
        return torch.addcmul(rows, noise, _per_sample(sd, rows))

    return _where(sd != 0, add, x, sd)


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian low-pass.

    Args:
        x: (B, C, *S).
        sigma: (B,) or (B, n) voxels; 0 is neutral.
    """
    sigma = sigma if sigma.ndim == 2 else sigma[:, None].expand(len(sigma), x.ndim - 2)
    return _where((sigma != 0).any(dim=1), gaussian_smooth, x, sigma)


def bias_field(x: Tensor, coefficients: Tensor, strength: Tensor) -> Tensor:
    """Multiply by exp(strength * field), field a sum of low-order cosines with standard deviation 1.

    Args:
        x: (B, C, *S).
        coefficients: (B, 1, *O) weights of the cosine of order o_d along axis d; the constant is ignored.
        strength: (B,); 0 is neutral.
    """

    def multiply(rows: Tensor, coefficients: Tensor, strength: Tensor) -> Tensor:
        axes = zip(rows.shape[2:], coefficients.shape[2:], strict=True)
        field = apply_separable(coefficients, [_cosines(size, orders, rows) for size, orders in axes])
        space = tuple(range(2, rows.ndim))
        field = field - field.mean(dim=space, keepdim=True)
        field = field / field.square().mean(dim=space, keepdim=True).sqrt().clamp(min=1e-6)
        return rows * (field * _per_sample(strength, rows)).exp()

    return _where(strength != 0, multiply, x, coefficients, strength)


def tone_curve(x: Tensor, curve: Tensor, active: Tensor) -> Tensor:
    """Map every value by a piecewise linear curve, after clipping to [0, 1].

    Args:
        x: (B, C, *S).
        curve: (B, N) values of the curve at N evenly spaced points of [0, 1].
        active: (B,) bool, where to apply it.
    """

    def look_up(rows: Tensor, curve: Tensor) -> Tensor:
        place = rows.flatten(1).clamp(0, 1) * (curve.shape[1] - 1)
        left = place.detach().long().clamp_(max=curve.shape[1] - 2)
        slope = curve.diff(dim=1)
        return (curve.gather(1, left) + (place - left) * slope.gather(1, left)).reshape(rows.shape)

    return _where(active, look_up, x, curve)


def _where(active: Tensor, change: Callable[..., Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
    """Change the active samples only; parameters live where they were drawn, so a CPU draw costs no wait."""
    rows = active.nonzero().squeeze(1)
    if len(rows) == 0:
        return x
    chosen = [p[rows.to(p.device)].to(x) for p in parameters]
    if len(rows) == len(x):
        return change(x, *chosen)
    rows = rows.to(x.device)
    return x.index_copy(0, rows, change(x[rows], *chosen))


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1) as x."""
    return values.to(x).reshape(-1, *(1,) * (x.ndim - 1))


def _cosines(size: int, orders: int, like: Tensor) -> Tensor:
    """(size, orders): cosine of each order at the centres of ``size`` cells."""
    centres = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size
    order = torch.arange(orders, device=like.device, dtype=like.dtype)
    return (math.pi * centres[:, None] * order).cos()
