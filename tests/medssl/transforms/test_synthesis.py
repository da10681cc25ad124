from __future__ import annotations

import pytest
import torch

from medssl.transforms.synthesis import LABELS, random_label_maps, render, smooth_noise


@pytest.fixture(params=[(33, 40), (20, 33, 24)], ids=["2d", "3d"])
def shape(request):
    return request.param


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_label_maps_have_several_tissues_and_depend_on_the_generator_alone(shape):
    maps = random_label_maps(6, shape, seeded())
    assert maps.shape == (6, *shape)
    assert maps.dtype == torch.int64
    assert maps.min() >= 0
    assert maps.max() < LABELS
    assert all(len(labels.unique()) >= 4 for labels in maps)
    assert torch.equal(maps, random_label_maps(6, shape, seeded()))
    assert not torch.equal(maps, random_label_maps(6, shape, seeded(1)))


def test_two_renderings_show_one_anatomy_in_two_contrasts(shape):
    maps = random_label_maps(4, shape, seeded())
    generator = seeded(3)
    first, second = render(maps, generator), render(maps, generator)
    assert first.shape == (4, 1, *shape)
    for image in (first, second):
        assert image.min() >= 0
        assert image.max() <= 1
        for sample, labels in zip(image[:, 0], maps, strict=True):
            for label in labels.unique():
                assert sample[labels == label].std(correction=0) < 0.11  # texture only, below its largest sd
    means = [
        torch.stack([image[b, 0][maps[b] == label].mean() for b in range(4) for label in maps[b].unique()])
        for image in (first, second)
    ]
    assert (means[0] - means[1]).abs().mean() > 0.15


def test_correlation_length_is_that_of_the_lattice():
    line = smooth_noise(1, 64, (200, 1), torch.tensor([10.0]), seeded())[0, :, :, 0]
    correlation = [
        (line[:, lag:] * line[:, : 200 - lag]).mean() / line.square().mean() for lag in (2, 10, 20)
    ]
    assert correlation[0] > 0.85
    assert 0.05 < correlation[1] < 0.4
    assert abs(correlation[2]) < 0.1
