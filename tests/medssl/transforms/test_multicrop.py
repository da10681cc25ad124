from __future__ import annotations

import pytest
import torch

from medssl.transforms.crops import crop
from medssl.transforms.multicrop import MultiCrop


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_counts_sizes_and_places(generator, spatial_dims):
    x = torch.rand(3, 2, *(15,) * spatial_dims, generator=generator)
    large, small = (8, 9, 10)[:spatial_dims], (4, 3, 5)[:spatial_dims]
    crops = MultiCrop(large, small, local_count=3)(x, generator)
    assert [tuple(image.shape) for image in crops.images] == [(3, 2, *large)] * 2 + [(3, 2, *small)] * 3
    volumes = [box.extent.prod(dim=1) for box in crops.boxes]
    assert min(v.min() for v in volumes[:2]) >= 0.24
    assert max(v.max() for v in volumes[2:]) <= 0.26
    for image, box in zip(crops.images, crops.boxes, strict=True):
        torch.testing.assert_close(image, crop(x, [box], image.shape[2:])[0])


def test_the_generator_alone_decides():
    x = torch.rand(2, 1, 12, 12)
    transform = MultiCrop((8, 8), (4, 4))
    first, same, other = (transform(x, torch.Generator().manual_seed(s)).images for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])


def test_no_local_crops(generator):
    assert len(MultiCrop((8, 8), (4, 4), local_count=0)(torch.rand(2, 1, 12, 12), generator).images) == 2


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="dimension"):
        MultiCrop((8, 8), (4, 4, 4))
    with pytest.raises(ValueError, match="global"):
        MultiCrop((8, 8), (4, 4), global_count=0)
