"""What happens to the intensities of one view: energy bands, then the random chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from medssl.transforms.energy import EnergyBands
from medssl.transforms.random_intensity import RandomIntensity


@dataclass(frozen=True)
class ViewIntensity:
    """Intensity augmentation of a view.

    Args:
        chain: window, tone, gamma, bias, linear, blur, noise.
        energy: bands whose energies are rescaled first.
        energy_p: probability of that.
        energy_sd: standard deviation of the log gain of a band.
        in_mm: whether the widths of the bands are mm, not voxels of the view; None: in 3D.
    """

    chain: RandomIntensity
    energy: EnergyBands
    energy_p: float = 0.0
    energy_sd: float = 0.3
    in_mm: bool | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """From values of `medssl.config.augmentation.IntensityConfig` by name."""
        rest = dict(settings)
        energy = EnergyBands(rest.pop("energy_sigmas"))
        p, deviation, unit = rest.pop("energy_p"), rest.pop("energy_sd"), rest.pop("energy_unit")
        return cls(RandomIntensity(**rest), energy, p, deviation, None if unit is None else unit == "mm")

    def __call__(self, x: Tensor, generator: torch.Generator, voxel: Tensor | None = None) -> Tensor:
        """The view changed, in [0, 1].

        Args:
            x: (B, C, *S).
            generator: source of all randomness.
            voxel: (B, n) mm per voxel of the view; needed where widths are mm.

        Raises:
            ValueError: widths are mm, and the size of a voxel is not given.
        """
        if self.energy_p:
            in_mm = x.ndim == 5 if self.in_mm is None else self.in_mm
            if in_mm and voxel is None:
                raise ValueError("bands in mm need the size of a voxel")
            spacing = voxel if in_mm else None
            x = self.energy.augment(x, generator, self.energy_sd, p=self.energy_p, spacing=spacing)
        return self.chain(x.clamp(0, 1), generator)
