"""Ranges of the intensity augmentations, shared by the methods."""

from __future__ import annotations

from pydantic import Field

from medssl.config.run import RunConfig

Range = tuple[float, float]


class IntensityConfig(RunConfig):
    """Intensity augmentation of one view, in order; inputs lie in [0, 1].

    Ghesu et al. 2022 name energy-based rescaling, gamma and linear transforms without numbers; the ranges
    are ours (documented choice), every one can be changed.
    """

    tone_probability: float = Field(0.5, ge=0, le=1, description="chance of a random smooth tone curve")
    invert_probability: float = Field(0.1, ge=0, le=1, description="chance that a tone curve is decreasing")
    energy_probability: float = Field(0.5, ge=0, le=1, description="chance of rescaling the energy bands")
    energy_sigma: float = Field(0.3, ge=0, description="sd of the log gain of each band (A.5.3: 0.2 to 0.4)")
    energy_scales: tuple[float, ...] = Field(
        (1.0, 2.0, 4.0), description="Gaussian widths of the bands, voxels"
    )
    gamma: Range = Field((0.7, 1.5), description="range of the gamma exponent, log-uniform")
    gain: Range = Field((0.8, 1.2), description="range of the linear gain")
    offset: Range = Field((-0.1, 0.1), description="range of the linear offset")
    bias_probability: float = Field(0.3, ge=0, le=1, description="chance of a smooth multiplicative field")
    bias_strength: float = Field(0.3, ge=0, description="sd of the log of the field")
    blur_probability: float = Field(0.3, ge=0, le=1, description="chance of Gaussian blur")
    blur_sigma: Range = Field((0.1, 1.2), description="range of its width, voxels")
    noise_probability: float = Field(0.5, ge=0, le=1, description="chance of Gaussian noise")
    noise: Range = Field((0.0, 0.05), description="range of its standard deviation")
