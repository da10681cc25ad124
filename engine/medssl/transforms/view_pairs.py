"""Two random views of every image, and where each lies: what contrastive and matching methods compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from medssl.transforms.correspondence import turned
from medssl.transforms.crops import CropBoxes
from medssl.transforms.energy import EnergyBands
from medssl.transforms.multicrop import MultiCrop
from medssl.transforms.random_intensity import RandomIntensity


@dataclass(frozen=True)
class ViewPair:
    """Two views of one batch.

    Args:
        images: two of (B, C, *size), in [0, 1].
        boxes: where each lies in the source, flips and quarter turns included.
    """

    images: tuple[Tensor, Tensor]
    boxes: tuple[CropBoxes, CropBoxes]


@dataclass(frozen=True)
class ViewPairs:
    """Two crops, flipped and turned by quarters, each with intensities of its own.

    Args:
        crops: size, scale, stretch and rotation; two global crops, no local ones.
        intensity: window, tone, gamma, bias, linear, blur, noise.
        energy: bands whose energies are rescaled first.
        energy_p: probability of that.
        energy_sd: standard deviation of the log gain of a band.
        turn_p: probability that a crop is flipped and turned.
    """

    crops: MultiCrop
    intensity: RandomIntensity
    energy: EnergyBands
    energy_p: float = 0.0
    energy_sd: float = 0.3
    turn_p: float = 1.0

    @classmethod
    def of(
        cls,
        size: tuple[int, ...],
        intensity: Mapping[str, Any],
        *,
        scale: tuple[float, float],
        aspect: float = 1.2,
        angle: float = 0.0,
        turn_p: float = 1.0,
    ) -> Self:
        """From plain settings.

        Args:
            size: (n,) voxels of a view.
            intensity: values of `medssl.config.augmentation.IntensityConfig` by name.
            scale: range of the volume fraction of a crop.
            aspect: largest stretch of an axis.
            angle: largest rotation, degrees.
            turn_p: probability of flips and quarter turns.
        """
        settings = dict(intensity)
        energy = EnergyBands(settings.pop("energy_sigmas"))
        energy_p, energy_sd = settings.pop("energy_p"), settings.pop("energy_sd")
        crops = MultiCrop(size, size, local_count=0, global_scale=scale, aspect=aspect, angle=angle)
        return cls(crops, RandomIntensity(**settings), energy, energy_p, energy_sd, turn_p)

    def __call__(self, x: Tensor, generator: torch.Generator) -> ViewPair:
        """(B, C, *S) in [0, 1] -> two views; all randomness from ``generator``."""
        drawn = self.crops.draw(len(x), tuple(x.shape[2:]), generator)
        first, second = (turned(box, generator, self.turn_p) for box in drawn)
        one, two = self.crops.apply(x, [first, second]).images
        return ViewPair((self._augmented(one, generator), self._augmented(two, generator)), (first, second))

    def _augmented(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if self.energy_p:
            x = self.energy.augment(x, generator, self.energy_sd, p=self.energy_p)
        return self.intensity(x.clamp(0, 1), generator)
