from __future__ import annotations

import pytest
import torch

from medssl.errors import InputError
from medssl.transforms.masked_image import MaskedView


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param


def test_views_have_the_size_and_the_cells_asked_for(spatial_dims, generator):
    x = torch.rand(3, 1, *(24,) * spatial_dims)
    view = MaskedView(32, (8,) * spatial_dims, 0.6)(x, generator)
    assert view.image.shape == (3, 1, *(32,) * spatial_dims)
    assert view.visible.shape == (3, 1, *(4,) * spatial_dims)
    assert (view.visible.flatten(1).sum(dim=1) == round(0.4 * 4**spatial_dims)).all()


def test_the_whole_source_unturned_is_the_source(spatial_dims, generator):
    x = torch.rand(2, 1, *(16, 8, 24)[:spatial_dims])
    view = MaskedView(None, (8,) * spatial_dims, 0.5, (1.0, 1.0), aspect=1.0, turn_p=0)(x, generator)
    torch.testing.assert_close(view.image, x, rtol=1e-4, atol=1e-5)


def test_bad_settings_are_refused_in_one_line(generator):
    x = torch.rand(1, 1, 16, 16)
    for view, words in (
        (MaskedView(None, (12, 12), 0.5), "does not divide"),
        (MaskedView(None, (16, 16), 0.9), "leaves 0 of 1 cells"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            view(x, generator)
        assert "\n" not in str(caught.value)
