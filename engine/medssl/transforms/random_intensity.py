"""Random intensity augmentation: one draw of all parameters, then a deterministic chain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medssl.transforms import intensity
from medssl.transforms.draws import chance, normal, seed, uniform


@dataclass(frozen=True)
class IntensityParameters:
    """What `RandomIntensity.draw` drew, one entry per sample; see `medssl.transforms.intensity`."""

    window_low: Tensor  # (B,)
    window_high: Tensor  # (B,)
    curve: Tensor  # (B, N)
    curve_active: Tensor  # (B,) bool
    gamma: Tensor  # (B,)
    bias_coefficients: Tensor  # (B, 1, *(orders,) * n)
    bias_strength: Tensor  # (B,)
    scale: Tensor  # (B,)
    shift: Tensor  # (B,)
    blur: Tensor  # (B,) voxels
    noise: Tensor  # (B,)
    noise_seed: int


@dataclass(frozen=True)
class RandomIntensity:
    """Random chain window -> tone curve -> gamma -> bias field -> linear -> blur -> noise -> clip to [0, 1].

    Each link has a probability per sample; with all at 0 the image (in [0, 1]) is unchanged. The tone curve
    replaces contrast: a random monotone curve, or with ``tone_free`` one that goes up and down, or with
    ``tone_inverted`` its mirror image. It makes features blind to which tissue is bright.

    Args:
        window_p: probability of another window.
        window_jitter: its ends move by up to this much.
        tone_p: probability of a tone curve.
        tone_knots: number of its knots.
        tone_free: share of curves that are not monotone.
        tone_inverted: probability that a curve runs from bright to dark.
        gamma_p: probability of a gamma.
        gamma_range: of the exponent, log-uniform.
        bias_p: probability of a smooth multiplicative field.
        bias_strength: largest standard deviation of its logarithm.
        bias_orders: cosines per axis.
        linear_p: probability of a linear map.
        scale_range: of its slope.
        shift_range: of its offset.
        blur_p: probability of a blur.
        blur_range: of its sigma in voxels.
        noise_p: probability of noise.
        noise_sd: its largest standard deviation.
    """

    window_p: float = 0.0
    window_jitter: float = 0.1
    tone_p: float = 0.0
    tone_knots: int = 8
    tone_free: float = 0.3
    tone_inverted: float = 0.3
    gamma_p: float = 0.5
    gamma_range: tuple[float, float] = (0.7, 1.5)
    bias_p: float = 0.0
    bias_strength: float = 0.3
    bias_orders: int = 4
    linear_p: float = 0.5
    scale_range: tuple[float, float] = (0.8, 1.2)
    shift_range: tuple[float, float] = (-0.1, 0.1)
    blur_p: float = 0.3
    blur_range: tuple[float, float] = (0.1, 2.0)
    noise_p: float = 0.3
    noise_sd: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.window_jitter < 0.5:
            raise ValueError(f"window_jitter must be in [0, 0.5), got {self.window_jitter}")
        if self.tone_knots < 2 or self.bias_orders < 2:
            raise ValueError("tone_knots and bias_orders must be at least 2")
        if self.gamma_range[0] <= 0:
            raise ValueError(f"gamma must be positive, got {self.gamma_range}")

    def draw(self, batch: int, spatial_dims: int, generator: torch.Generator) -> IntensityParameters:
        """All randomness of one batch, on the generator's device."""
        b = (batch,)

        def sometimes(p: float, values: Tensor, neutral: float) -> Tensor:
            return torch.where(chance(generator, b, p), values, torch.full_like(values, neutral))

        jitter = self.window_jitter
        log_gamma = uniform(generator, b, *(math.log(end) for end in self.gamma_range))
        return IntensityParameters(
            window_low=sometimes(self.window_p, uniform(generator, b, -jitter, jitter), 0.0),
            window_high=sometimes(self.window_p, 1 + uniform(generator, b, -jitter, jitter), 1.0),
            curve=random_tone_curve(batch, generator, self.tone_knots, self.tone_free, self.tone_inverted),
            curve_active=chance(generator, b, self.tone_p),
            gamma=sometimes(self.gamma_p, log_gamma.exp(), 1.0),
            bias_coefficients=normal(generator, (batch, 1, *(self.bias_orders,) * spatial_dims)),
            bias_strength=sometimes(self.bias_p, uniform(generator, b, 0, self.bias_strength), 0.0),
            scale=sometimes(self.linear_p, uniform(generator, b, *self.scale_range), 1.0),
            shift=sometimes(self.linear_p, uniform(generator, b, *self.shift_range), 0.0),
            blur=sometimes(self.blur_p, uniform(generator, b, *self.blur_range), 0.0),
            noise=sometimes(self.noise_p, uniform(generator, b, 0, self.noise_sd), 0.0),
            noise_seed=seed(generator),
        )

    def apply(self, x: Tensor, parameters: IntensityParameters) -> Tensor:
        """The chain with given parameters, (B, C, *S) in [0, 1] -> (B, C, *S) in [0, 1]."""
        p = parameters
        if self.window_p:
            x = intensity.window(x, p.window_low, p.window_high)
        x = intensity.tone_curve(x, p.curve, p.curve_active)
        x = intensity.gamma(x, p.gamma)
        x = intensity.bias_field(x, p.bias_coefficients, p.bias_strength)
        if self.linear_p:
            x = intensity.linear(x, p.scale, p.shift)
        x = intensity.gaussian_blur(x, p.blur)
        x = intensity.gaussian_noise(x, p.noise, p.noise_seed)
        return x.clamp(0, 1)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """`draw` and `apply`, (B, C, *S) -> (B, C, *S)."""
        return self.apply(x, self.draw(len(x), x.ndim - 2, generator))


def random_tone_curve(
    batch: int, generator: torch.Generator, knots: int = 8, free: float = 0.3, inverted: float = 0.3
) -> Tensor:
    """Random curves on [0, 1] for `intensity.tone_curve`.

    A monotone curve has exponentially distributed steps scaled to run from 0 to 1. A free one has values
    drawn uniformly at every second knot, linear between them, stretched to fill [0, 1].

    Args:
        batch: B.
        generator: source of all randomness.
        knots: N, evenly spaced values per curve.
        free: share of curves that need not be monotone.
        inverted: probability of 1 - curve.

    Returns:
        (B, N) in [0, 1].
    """
    steps = -torch.log1p(-uniform(generator, (batch, knots - 1)))
    rising = torch.nn.functional.pad(steps.cumsum(dim=1), (1, 0))
    rising = rising / rising[:, -1:].clamp(min=1e-6)
    coarse = uniform(generator, (batch, 1, max(knots // 2, 2)))
    wavy = torch.nn.functional.interpolate(coarse, size=knots, mode="linear", align_corners=True)[:, 0]
    low, high = wavy.amin(dim=1, keepdim=True), wavy.amax(dim=1, keepdim=True)
    wavy = (wavy - low) / (high - low).clamp(min=1e-6)
    curve = torch.where(chance(generator, (batch, 1), free), wavy, rising)
    return torch.where(chance(generator, (batch, 1), inverted), 1 - curve, curve)
