from __future__ import annotations

import pytest
import torch

from medssl.transforms.genesis import GenesisCorruption
from medssl.transforms.spatial import undo

NEVER = GenesisCorruption(flip_p=0, shuffle_p=0, curve_p=0, paint_p=0)
SHAPES = pytest.mark.parametrize("shape", [(25, 30), (21, 24, 31)], ids=["plane", "space"])


@SHAPES
def test_probability_zero_is_the_identity(generator, shape):
    x = torch.rand(3, 1, *shape, generator=generator)
    corrupted, target = NEVER(x, generator)
    assert torch.equal(corrupted, x)
    assert torch.equal(target, x)


@SHAPES
def test_target_is_only_flipped_and_the_pair_shares_its_flips(generator, shape):
    x = torch.rand(16, 1, *shape, generator=generator)
    transform = GenesisCorruption(flip_p=0.8, shuffle_p=0, curve_p=0, paint_p=1, inner_p=1)
    parameters = transform.draw(16, shape, generator)
    corrupted, target = transform.apply(x, parameters)
    assert torch.equal(undo(target, parameters.flips), x)
    assert parameters.flips.flip.any(dim=0).all()
    same = (corrupted == target).flatten(1).float().mean(dim=1)
    assert (same > 0.4).all()


@SHAPES
def test_all_corruptions_keep_range_shape_and_type(generator, shape):
    x = torch.rand(8, 2, *shape, generator=generator)
    corrupted, target = GenesisCorruption(shuffle_p=1, curve_p=1, paint_p=1, inner_p=0.5)(x, generator)
    assert corrupted.shape == target.shape == x.shape
    assert corrupted.dtype == x.dtype
    assert corrupted.min() >= 0
    assert corrupted.max() <= 1
    assert ((corrupted != target).flatten(1).float().mean(dim=1) > 0.5).all()


def test_published_rates(generator):
    drawn = GenesisCorruption().draw(6000, (16, 16), generator)
    for active, rate in (
        (drawn.painted_in, 0.18),
        (drawn.painted_out, 0.72),
        (drawn.shuffled, 0.5),
        (drawn.curved, 0.9),
        (drawn.decreasing, 0.5),
    ):
        assert active.float().mean().item() == pytest.approx(rate, abs=0.02)
    assert not (drawn.painted_in & drawn.painted_out).any()


def test_the_generator_alone_decides():
    x = torch.rand(4, 1, 24, 24)
    first, same, other = (GenesisCorruption()(x, torch.Generator().manual_seed(s))[0] for s in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@SHAPES
def test_published_flips_are_of_x_and_y_and_one_in_three_of_nothing(generator, shape):
    drawn = GenesisCorruption(flip_p=0.5, published_flips=True).draw(6000, shape, generator).flips.flip
    assert not drawn[:, :-2].any()
    # one to three draws in a row, each of one of three axes: (1 - (1/3)^k) / 2 of them odd
    odd = sum(share * (1 - (1 / 3) ** draws) / 2 for draws, share in ((1, 0.25), (2, 0.125), (3, 0.125)))
    torch.testing.assert_close(drawn[:, -2:].float().mean(dim=0), torch.full((2,), odd), atol=0.02, rtol=0)
