from __future__ import annotations

import pytest
import torch

from medssl.transforms.masking import draw_visible


@pytest.mark.parametrize(
    ("grid", "ratio", "kept"),
    [
        ((7, 7), 0.6, 20),
        ((12, 12), 0.75, 36),
        ((6, 6), 0.6, 14),
        ((10, 10, 10), 0.75, 250),
        ((3, 5, 4), 0.6, 24),
    ],
)
def test_exactly_k_cells_are_visible(generator, grid, ratio, kept):
    visible = draw_visible(8, grid, ratio, generator)
    assert visible.shape == (8, 1, *grid)
    assert (visible.flatten(1).sum(dim=1) == kept).all()
    assert not torch.equal(visible[0], visible[1])


def test_every_cell_is_equally_likely(generator):
    rate = draw_visible(4000, (4, 5), 0.6, generator).float().mean(dim=0)
    assert (rate - 0.4).abs().max() < 5 * (0.4 * 0.6 / 4000) ** 0.5


def test_same_seed_same_mask():
    first, second = (draw_visible(3, (4, 4), 0.5, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first, second)


def test_bad_settings_are_refused(generator):
    with pytest.raises(ValueError, match="ratio"):
        draw_visible(1, (2, 2), 1.0, generator)
