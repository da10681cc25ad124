"""Energy bands: split an image by scale, and rescale how strong each scale is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medssl.transforms.draws import chance, normal, uniform
from medssl.transforms.separable import gaussian_smooth

_LEAST_ENERGY = 1e-6


class EnergyBands:
    """Band-pass decomposition I = sum of bands, with local control of the energy of each.

    low_0 = I, low_i = Gaussian_i(low_{i-1}), band_i = low_{i-1} - low_i; the last low-pass is the residual.
    The energy of a band is its standard deviation over a region. Normalising scales each band to a reference
    energy; augmenting multiplies each band's energy by a random factor, which changes sharpness, texture and
    contrast as scanners and reconstruction kernels do, but moves nothing.

    Args:
        sigmas: of the Gaussians, fine to coarse (the reference has these); in mm where ``spacing`` is given
            to a call, else in voxels.
        centre: share of each axis, around the middle, that energies are measured on when no mask is given.

    Reference: Philipsen et al., "Localized energy-based normalization of medical images", IEEE TMI 2015. The
    augmentation is ours (its form in Ghesu et al. 2022 is not published). Borders are mirrored, not wrapped.
    """

    def __init__(self, sigmas: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0), centre: float = 0.7) -> None:
        if not sigmas or min(sigmas) <= 0:
            raise ValueError(f"sigmas must be positive, got {tuple(sigmas)}")
        if not 0 < centre <= 1:
            raise ValueError(f"centre must be in (0, 1], got {centre}")
        self.sigmas = tuple(sigmas)
        self.centre = centre

    def split(self, x: Tensor, spacing: Tensor | None = None) -> list[Tensor]:
        """The bands, fine to coarse, and the residual last; they add up to ``x``.

        Args:
            x: (B, C, *S).
            spacing: (B, n) mm per voxel, or None for sigmas in voxels.

        Returns:
            len(sigmas) + 1 tensors (B, C, *S).
        """
        bands = []
        for sigma in self.sigmas:
            low = gaussian_smooth(x, sigma if spacing is None else sigma / spacing)
            bands.append(x - low)
            x = low
        return [*bands, x]

    def energy(self, bands: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Standard deviation of each band over the region.

        Args:
            bands: from `split`, each (B, C, *S).
            mask: (B, 1, *S) bool region, or None for the central box.

        Returns:
            (B, C, len(bands)), at least 1e-6.
        """
        deviations = [self._moments(band, mask)[1] for band in bands]
        return torch.stack(deviations, dim=-1)

    def rescale(
        self, bands: Sequence[Tensor], reference: Sequence[float] | Tensor, mask: Tensor | None = None
    ) -> list[Tensor]:
        """Bands of reference energy; the residual to mean 0 and energy 1 times its reference.

        Args:
            bands: from `split`, each (B, C, *S).
            reference: one energy per band, fine to coarse, residual last: (n_bands,) or (B, n_bands).
            mask: see `energy`.

        Returns:
            As many tensors (B, C, *S).
        """
        targets = torch.as_tensor(reference, dtype=bands[0].dtype, device=bands[0].device)
        if targets.shape[-1] != len(bands):
            raise ValueError(f"reference needs {len(bands)} energies, got {targets.shape[-1]}")
        targets = targets.expand(len(bands[0]), len(bands))
        scaled = []
        for i, band in enumerate(bands):
            mean, deviation = self._moments(band, mask)  # each (B, C)
            centred = band - _broad(mean, band) if i == len(bands) - 1 else band
            scaled.append(centred * _broad(targets[:, i, None] / deviation, band))
        return scaled

    def normalise(
        self,
        x: Tensor,
        reference: Sequence[float] | Tensor,
        mask: Tensor | None = None,
        spacing: Tensor | None = None,
    ) -> Tensor:
        """The image whose bands have the reference energies; a*x + b gives the same for a > 0.

        Args:
            x: (B, C, *S).
            reference: see `rescale`.
            mask: see `energy`.
            spacing: see `split`.

        Returns:
            (B, C, *S).
        """
        return torch.stack(self.rescale(self.split(x, spacing), reference, mask)).sum(dim=0)

    def draw(
        self,
        batch: int,
        generator: torch.Generator,
        sigma_aug: float = 0.3,
        residual: tuple[float, float] = (1.0, 1.0),
        p: float = 1.0,
    ) -> Tensor:
        """Random gains: LogNormal(0, sigma_aug) per band, uniform in ``residual`` for the residual.

        Args:
            batch: B.
            generator: source of all randomness.
            sigma_aug: standard deviation of the logarithm of a gain.
            residual: range of the residual's gain.
            p: probability that a sample is changed; its gains are 1 otherwise.

        Returns:
            (B, n_bands), fine to coarse, residual last, on the generator's device.
        """
        gains = normal(generator, (batch, len(self.sigmas)), sigma_aug).exp()
        gains = torch.cat([gains, uniform(generator, (batch, 1), *residual)], dim=1)
        return torch.where(chance(generator, (batch, 1), p), gains, torch.ones_like(gains))

    def apply(self, x: Tensor, gains: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Multiply the energy of each band; the residual changes about its own mean.

        Args:
            x: (B, C, *S).
            gains: (B, n_bands) from `draw`; rows of ones leave their sample exactly as it is.
            spacing: see `split`.

        Returns:
            (B, C, *S); may leave the range of ``x``.
        """
        rows = (gains != 1).any(dim=1).nonzero().squeeze(1)
        if len(rows) == 0:
            return x
        gains, rows = gains[rows].to(x), rows.to(x.device)
        # sum of gain_i (low_{i-1} - low_i) + gain_r low_n, gathered by low-pass: two are alive at a time.
        weights = torch.cat([gains[:, :1], gains.diff(dim=1)], dim=1)  # (B, n_bands)
        low = x[rows]
        changed = low * _broad(weights[:, :1], low)
        for i, sigma in enumerate(self.sigmas, start=1):
            low = gaussian_smooth(low, sigma if spacing is None else sigma / spacing[rows])
            changed = torch.addcmul(changed, low, _broad(weights[:, i, None], low))
        mean = low.mean(dim=tuple(range(2, x.ndim)), keepdim=True)
        changed = torch.addcmul(changed, mean, _broad(1 - gains[:, -1:], low))
        return x.index_copy(0, rows, changed)

    def augment(
        self,
        x: Tensor,
        generator: torch.Generator,
        sigma_aug: float = 0.3,
        residual: tuple[float, float] = (1.0, 1.0),
        p: float = 1.0,
        *,
        spacing: Tensor | None = None,
    ) -> Tensor:
        """`draw` and `apply`: random energies around the image's own, (B, C, *S) -> (B, C, *S)."""
        return self.apply(x, self.draw(len(x), generator, sigma_aug, residual, p), spacing)

    def _moments(self, band: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the region, each (B, C)."""
        if mask is None:
            region = band
            for axis, size in enumerate(band.shape[2:], start=2):
                margin = min(round(size * (1 - self.centre) / 2), (size - 1) // 2)
                region = region.narrow(axis, margin, size - 2 * margin)
            region = region.flatten(2)
            weight = region.new_ones(())
        else:
            region = band.flatten(2)
            weight = mask.to(band).flatten(2)
        count = weight.expand_as(region).sum(dim=-1).clamp(min=1)
        mean = (region * weight).sum(dim=-1) / count
        variance = ((region - mean[..., None]).square() * weight).sum(dim=-1) / count
        return mean, variance.sqrt().clamp(min=_LEAST_ENERGY)


def _broad(values: Tensor, like: Tensor) -> Tensor:
    """(B, C) or (B, 1) -> (B, C or 1, 1, ...)."""
    return values.reshape(*values.shape, *(1,) * (like.ndim - 2))
