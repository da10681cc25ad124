from __future__ import annotations

import pytest
import torch

from medssl.transforms.energy import EnergyBands

BANDS = EnergyBands((0.7, 1.5, 3.0))
REFERENCE = (0.1, 0.3, 0.5, 1.0)


def test_bands_add_up_to_the_image(image):
    bands = BANDS.split(image)
    assert len(bands) == 4
    torch.testing.assert_close(torch.stack(bands).sum(0), image, atol=1e-5, rtol=0)


def test_sigma_in_mm_is_divided_by_the_spacing(image):
    axes = image.ndim - 2
    spacing = torch.full((len(image), axes), 2.0)
    in_mm = EnergyBands((1.4, 3.0)).split(image, spacing)
    in_voxels = EnergyBands((0.7, 1.5)).split(image)
    for a, b in zip(in_mm, in_voxels, strict=True):
        torch.testing.assert_close(a, b)


def test_energy_is_the_deviation_over_the_centre(image):
    bands = EnergyBands((1.0,), centre=1.0).split(image)
    expected = torch.stack([band.flatten(2).std(dim=2, correction=0) for band in bands], dim=-1)
    torch.testing.assert_close(EnergyBands((1.0,), centre=1.0).energy(bands), expected)
    everywhere = torch.ones_like(image[:, :1], dtype=torch.bool)
    torch.testing.assert_close(EnergyBands((1.0,)).energy(bands, everywhere), expected)


def test_rescaled_bands_have_the_reference_energy(image):
    mask = torch.zeros_like(image[:, :1], dtype=torch.bool)
    mask[..., 2:6] = True
    for region in (None, mask):
        scaled = BANDS.rescale(BANDS.split(image), REFERENCE, region)
        energy = BANDS.energy(scaled, region)
        torch.testing.assert_close(energy, torch.tensor(REFERENCE).expand_as(energy))


def test_normalising_ignores_positive_linear_maps(image):
    normal = BANDS.normalise(image.double(), REFERENCE)
    torch.testing.assert_close(BANDS.normalise(3.5 * image.double() - 2, REFERENCE), normal)
    assert (BANDS.normalise(-image.double(), REFERENCE) - normal).abs().max() > 1


def test_unit_gains_change_nothing(image, generator):
    assert torch.equal(BANDS.apply(image, torch.ones(4, 4)), image)
    assert torch.equal(BANDS.augment(image, generator, p=0.0), image)
    torch.testing.assert_close(BANDS.augment(image, generator, sigma_aug=0.0), image)


def test_gains_multiply_the_energy_of_each_band(image, generator):
    gains = BANDS.draw(len(image), generator, residual=(0.8, 1.2))
    bands = BANDS.split(image)
    gain = gains.reshape(len(image), 4, *(1,) * (image.ndim - 1))
    mean = bands[-1].mean(dim=tuple(range(2, image.ndim)), keepdim=True)
    expected = sum(band * gain[:, i] for i, band in enumerate(bands[:-1]))
    expected = expected + mean + (bands[-1] - mean) * gain[:, 3]
    torch.testing.assert_close(BANDS.apply(image, gains), expected)


def test_gains_are_lognormal_and_drawn_by_the_generator():
    gains = BANDS.draw(20000, torch.Generator().manual_seed(1), sigma_aug=0.3, p=0.5)
    assert torch.equal(gains, BANDS.draw(20000, torch.Generator().manual_seed(1), sigma_aug=0.3, p=0.5))
    changed = gains[(gains != 1).any(dim=1)]
    assert len(changed) / len(gains) == pytest.approx(0.5, abs=0.02)
    assert changed[:, :3].log().std().item() == pytest.approx(0.3, abs=0.01)
    assert changed[:, :3].log().mean().item() == pytest.approx(0.0, abs=0.01)
    assert (gains[:, 3] == 1).all()


def test_constant_image_stays_finite(image):
    flat = torch.full_like(image, 0.3)
    assert BANDS.normalise(flat, REFERENCE).isfinite().all()
    torch.testing.assert_close(BANDS.apply(flat, torch.full((4, 4), 1.7)), flat)


def test_gradient_flows(image, generator):
    BANDS.augment(image.requires_grad_(), generator).square().sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert (image.grad != 0).all()


def test_bad_settings_are_refused(image):
    with pytest.raises(ValueError, match="sigmas"):
        EnergyBands(())
    with pytest.raises(ValueError, match="centre"):
        EnergyBands(centre=0)
    with pytest.raises(ValueError, match="4 energies"):
        BANDS.normalise(image, (1.0, 1.0))
