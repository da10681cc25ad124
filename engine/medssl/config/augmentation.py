"""Ranges of the intensity augmentations, shared by the methods."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from medssl.config.run import RunConfig
from medssl.errors import InputError

Range = tuple[float, float]


class TurnsConfig(RunConfig):
    """Symmetries of the square or the cube that a crop is moved by."""

    turn_p: float = Field(
        1.0,
        ge=0,
        le=1,
        description="probability that a crop is mirrored at random, along each axis or not; 0 where "
        "laterality matters",
    )
    quarter_turns: bool = Field(
        False, description="turned by quarters too: one of all 8 symmetries of the square, 48 of the cube"
    )
    mirror_axes: tuple[int, ...] | None = Field(
        None,
        description="axes that a crop may be mirrored along, 0 the first one of the image, -1 the last "
        "(left and right where scans lie as usual: the horizontal flip); default all",
    )

    @model_validator(mode="after")
    def _axes(self) -> Self:
        if self.mirror_axes is not None and not all(-3 <= axis <= 2 for axis in self.mirror_axes):
            raise ValueError("mirror_axes are numbers of axes: 0, 1, 2, or -1, -2, -3 from the last one")
        if self.mirror_axes is not None and self.quarter_turns:
            raise ValueError(
                "mirror_axes means nothing with quarter_turns, which turn every axis into others"
            )
        return self

    def check_dims(self, dims: int) -> None:
        """Refuse axes that an image of so many dimensions does not have.

        Raises:
            InputError: naming the setting.
        """
        if not all(-dims <= axis < dims for axis in self.mirror_axes or ()):
            raise InputError(
                f"mirror_axes {list(self.mirror_axes or ())}: an image in {dims}D has {dims} axes"
            )


class IntensityConfig(RunConfig):
    """Intensity augmentation of one view; inputs lie in [0, 1].

    Ghesu et al. 2022 name energy-based rescaling, gamma and linear transforms without numbers; the ranges
    are ours (a documented choice), every one can be changed.
    """

    energy_p: float = Field(0.5, ge=0, le=1, description="probability of rescaling the energy bands")
    energy_sd: float = Field(
        0.3, ge=0, description="sd of the log gain of each band (method notes: 0.2 to 0.4)"
    )
    energy_sigmas: tuple[float, ...] = Field(
        (1.0, 2.0, 4.0, 8.0, 16.0), description="Gaussian widths of the bands (Philipsen et al.: these)"
    )
    energy_unit: Literal["voxel", "mm"] | None = Field(
        None, description="unit of these widths: voxels of the view, or mm; default mm in 3D, voxels in 2D"
    )
    window_p: float = Field(0.0, ge=0, le=1, description="probability of another window (CT)")
    window_jitter: float = Field(0.1, ge=0, lt=0.5, description="its ends move by up to this much")
    tone_p: float = Field(
        0.0, ge=0, le=1, description="probability of a random tone curve (contrast is replaced)"
    )
    tone_free: float = Field(0.0, ge=0, le=1, description="share of tone curves that are not monotone")
    tone_inverted: float = Field(
        0.2, ge=0, le=1, description="share of tone curves that run from bright to dark"
    )
    gamma_p: float = Field(0.5, ge=0, le=1, description="probability of a gamma")
    gamma_range: Range = Field((0.7, 1.5), description="exponent of the gamma, log-uniform")
    linear_p: float = Field(0.5, ge=0, le=1, description="probability of a linear map")
    scale_range: Range = Field((0.8, 1.2), description="slope of the linear map")
    shift_range: Range = Field((-0.1, 0.1), description="offset of the linear map")
    bias_p: float = Field(0.0, ge=0, le=1, description="probability of a smooth multiplicative field")
    bias_strength: float = Field(0.3, ge=0, description="largest sd of its logarithm")
    blur_p: float = Field(0.3, ge=0, le=1, description="probability of a blur")
    blur_range: Range = Field((0.1, 2.0), description="width of the blur, voxels")
    noise_p: float = Field(0.3, ge=0, le=1, description="probability of Gaussian noise")
    noise_sd: float = Field(0.05, ge=0, description="largest sd of the noise")
