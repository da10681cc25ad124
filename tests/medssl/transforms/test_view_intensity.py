from __future__ import annotations

import pytest
import torch

from medssl.config.augmentation import IntensityConfig
from medssl.transforms.crops import draw_boxes
from medssl.transforms.view_intensity import ViewIntensity

CALM = {f"{name}_p": 0.0 for name in ("energy", "tone", "gamma", "linear", "bias", "blur", "noise")}


def make(**changes) -> ViewIntensity:
    return ViewIntensity.of(IntensityConfig(**{**CALM, **changes}).model_dump())


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_bands_in_mm_are_those_of_as_many_voxels(spatial_dims: int) -> None:
    x = torch.rand(2, 1, *(24,) * spatial_dims, generator=torch.Generator().manual_seed(0))
    in_mm = make(energy_p=1.0, energy_unit="mm", energy_sigmas=(2.0, 4.0))
    in_voxels = make(energy_p=1.0, energy_unit="voxel", energy_sigmas=(1.0, 2.0))
    two_mm = torch.full((2, spatial_dims), 2.0)
    changed = in_mm(x, seeded(), two_mm)
    torch.testing.assert_close(changed, in_voxels(x, seeded(), two_mm))
    assert (changed - x).abs().max() > 0.01
    assert not torch.allclose(changed, in_mm(x, seeded(), 2 * two_mm), atol=1e-3)
    with pytest.raises(ValueError, match="size of a voxel"):
        in_mm(x, seeded())
    by_default = make(energy_p=1.0)(x, seeded(), two_mm)
    unit = "mm" if spatial_dims == 3 else "voxel"
    assert torch.equal(by_default, make(energy_p=1.0, energy_unit=unit)(x, seeded(), two_mm))


def test_another_window_is_a_setting() -> None:
    x = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    assert torch.equal(make()(x, seeded()), x)
    y = make(window_p=1.0, window_jitter=0.3)(x, seeded())
    assert not torch.equal(y, x)
    assert (y.flatten().diff() >= 0).all()  # a window keeps the order


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_voxels_of_a_crop_are_measured_along_its_axes(spatial_dims: int) -> None:
    """A box of half the edge at as many voxels has voxels of half the length, turned or not."""
    shape, spacing = (40,) * spatial_dims, torch.full((5, spatial_dims), 1.5)
    for angle in (0.0, 30.0):
        box = draw_boxes(5, shape, seeded(), scale=(0.5**spatial_dims,) * 2, aspect=1.0, angle=angle)
        voxel = box.voxel(spacing * 40, shape)
        torch.testing.assert_close(voxel, torch.full((5, spatial_dims), 0.75))
    upright = draw_boxes(1, (40, 20), seeded(), scale=(1.0, 1.0), aspect=1.0)
    assert upright.voxel(torch.tensor([[40.0, 60.0]]), (20, 20)).tolist() == [[2.0, 3.0]]
