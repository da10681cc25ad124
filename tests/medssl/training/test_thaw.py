from __future__ import annotations

import pytest
import torch
from torch import nn

from medssl.training.optim import set_learning_rate
from medssl.training.thaw import Thaw


def test_the_encoder_starts_at_a_tenth_and_doubles_up_to_its_own_rate():
    encoder, head = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [
        {"params": list(encoder.parameters()), "lr_scale": 0.2},
        {"params": list(head.parameters()), "lr_scale": 1.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    thaw = Thaw(optimizer, encoder.parameters(), begin=10, every=5)
    rates = {}
    for step in (0, 10, 15, 20, 25, 26, 27, 1000):
        thaw(step)
        set_learning_rate(optimizer, 3.0)
        rates[step] = optimizer.param_groups[0]["lr"] / (3.0 * 0.2)
        assert optimizer.param_groups[1]["lr"] == 3.0
    expected = {0: 0.1, 10: 0.1, 15: 0.2, 20: 0.4, 25: 0.8, 26: 0.8 * 2**0.2, 27: 1.0, 1000: 1.0}
    assert rates == pytest.approx(expected)


def test_mixed_groups_are_refused():
    encoder, head = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=1.0)
    with pytest.raises(ValueError, match="mixes parameters"):
        Thaw(optimizer, encoder.parameters(), begin=1, every=1)


def test_groups_that_a_checkpoint_put_in_place_thaw_too():
    def made() -> tuple[torch.optim.Optimizer, Thaw]:
        encoder, head = nn.Linear(2, 2), nn.Linear(2, 2)
        groups = [
            {"params": list(encoder.parameters()), "lr_scale": 0.2},
            {"params": list(head.parameters()), "lr_scale": 1.0},
        ]
        optimizer = torch.optim.SGD(groups, lr=1.0)
        return optimizer, Thaw(optimizer, encoder.parameters(), begin=10, every=5)

    stopped, thaw = made()
    thaw(5)
    resumed, thaw = made()
    resumed.load_state_dict(stopped.state_dict())
    thaw(1000)
    assert [group["lr_scale"] for group in resumed.param_groups] == [0.2, 1.0]
