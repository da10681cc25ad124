from __future__ import annotations

import pytest
import torch
from torch import nn

from medssl.nets.momentum import MomentumCopy, momentum_at


def test_a_copy_follows_weights_but_not_running_statistics():
    original = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    copy = MomentumCopy(original)
    assert not any(p.requires_grad for p in copy.parameters())
    with torch.no_grad():
        original[0].weight.add_(1.0)
        original[1].running_mean.add_(1.0)
    before = copy.copies[0][0].weight.clone()
    copy.follow([original], 0, 0.9)  # at the first step there is nothing to follow
    assert torch.equal(copy.copies[0][0].weight, before)
    for _ in range(2):
        copy.follow([original], 1, 0.9)
    torch.testing.assert_close(copy.copies[0][0].weight, before + 0.1)
    copy.follow([original], 2, 0.9)
    torch.testing.assert_close(copy.copies[0][0].weight, before + 0.19)
    assert torch.equal(copy.copies[0][1].running_mean, torch.zeros(3))


def test_another_module_is_refused():
    with pytest.raises(ValueError, match="zip"):
        MomentumCopy(nn.Linear(2, 3)).follow([], 1, 0.9)


@pytest.mark.parametrize(
    ("step", "steps", "expected"),
    [(0, 100, 0.996), (50, 100, 0.998), (100, 100, 1.0), (150, 100, 1.0), (70, None, 0.996)],
)
def test_schedule(step, steps, expected):
    assert momentum_at(step, steps, 0.996, 1.0) == pytest.approx(expected, abs=1e-12)
