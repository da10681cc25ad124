from __future__ import annotations

import torch

from medssl.losses.view_statistics import view_statistics


def test_equal_and_well_spread_views():
    z = torch.cat([torch.eye(4), -torch.eye(4)])
    numbers = view_statistics(3 * z, z)
    assert numbers["match_accuracy"] == 1
    torch.testing.assert_close(numbers["alignment"], torch.tensor(1.0))
    torch.testing.assert_close(numbers["feature_spread"], torch.tensor(1.0))  # they fill the sphere


def test_collapsed_and_mismatched_views():
    z = torch.ones(5, 3, requires_grad=True)
    numbers = view_statistics(z, z)
    assert numbers["feature_spread"] < 1e-6
    assert numbers["match_accuracy"] == 0.2  # chance
    assert not any(value.requires_grad for value in numbers.values())
    shifted = view_statistics(torch.eye(4), torch.eye(4).roll(1, 0))
    assert (shifted["match_accuracy"], shifted["alignment"]) == (0, 0)
