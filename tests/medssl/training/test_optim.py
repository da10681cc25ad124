from __future__ import annotations

import math

import pytest
import torch

from medssl.config.training import TrainingConfig
from medssl.training.optim import (
    Lamb,
    Larc,
    build_optimizer,
    learning_rate,
    parameter_groups,
    set_learning_rate,
    set_weight_decay,
    weight_decay,
)


def test_norms_biases_and_prototypes_do_not_decay(toy) -> None:
    module = toy()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decayed = {
        names[id(parameter)]
        for group in parameter_groups(module, 0.1)
        for parameter in group["params"]
        if group["weight_decay"] > 0
    }
    assert decayed == {"backbone.encoder.0.weight", "head.weight"}
    count = sum(len(group["params"]) for group in parameter_groups(module, 0.1))
    assert count == len(names)


def test_frozen_parameters_are_left_out_and_scales_reach_the_rate(toy) -> None:
    module = toy()
    module.head.weight.requires_grad_(False)
    optimizer = build_optimizer(module, TrainingConfig(), lambda name: 0.5 if "backbone" in name else 1.0)
    set_learning_rate(optimizer, 0.2)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert id(module.head.weight) not in rates
    assert rates[id(module.backbone.encoder[0].weight)] == 0.1
    assert rates[id(module.prototypes.weight)] == 0.2


def test_parameters_set_apart_share_no_group_at_an_equal_rate(toy) -> None:
    module = toy()
    encoder = {id(parameter) for parameter in module.backbone.parameters()}
    groups = parameter_groups(module, 0.1, apart=lambda name: name.startswith("backbone."))
    for group in groups:
        assert len({id(parameter) in encoder for parameter in group["params"]}) == 1
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))


def test_rate_warms_up_and_follows_a_cosine() -> None:
    config = TrainingConfig(steps=101, warmup=0.1, lr=2.0, final_lr=0.1)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(2 * (0.1 + 0.9 * 0.5))
    assert rates[100] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(0, TrainingConfig(steps=1)) == TrainingConfig().lr


def test_lamb_by_hand() -> None:
    weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    optimizer = Lamb([{"params": [weight], "weight_decay": 0.1}], lr=0.5, betas=(0.9, 0.99), eps=0.0)
    weight.grad = torch.tensor([[2.0, -7.0]])
    optimizer.step()
    # first step: m_hat / sqrt(v_hat) is the sign of the gradient
    update = torch.tensor([[1.0 + 0.3, -1.0 + 0.4]])
    expected = torch.tensor([[3.0, 4.0]]) - 0.5 * 5.0 / math.hypot(1.3, 0.6) * update
    torch.testing.assert_close(weight.data, expected)


def test_lamb_without_decay_is_adam() -> None:
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    lamb = Lamb([ours], lr=0.1, betas=(0.9, 0.99), eps=1e-6)
    adam = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99), eps=1e-6)
    for step in range(5):
        for parameter in (ours, theirs):
            parameter.grad = torch.tensor([0.3, -0.2 * step])
        lamb.step()
        adam.step()
    torch.testing.assert_close(ours, theirs)


def test_the_published_schedule_of_spark_is_a_setting() -> None:
    config = TrainingConfig(
        steps=1600, optimizer="lamb", lr=1.0, warmup=0.025, warmup_start=0.005, final_lr=0.001,
        weight_decay=0.04, final_weight_decay=0.2, momentum=0.9, beta2=0.95, clip=5,
    )  # fmt: skip
    expected = {
        0: (0.005, 0.04),
        20: (0.5025, 0.0400618),
        40: (1.0, 0.0402469),
        800: (0.5201228503, 0.1200785889),
        1599: (0.001, 0.2),
    }
    for step, (rate, decay) in expected.items():
        digits = len(str(decay)) - 2  # as many as the specification gives
        assert learning_rate(step, config) == pytest.approx(rate, rel=1e-9)
        assert weight_decay(step, config) == pytest.approx(decay, abs=0.5001 * 10**-digits)


def test_weight_decay_moves_where_there_is_any(toy) -> None:
    optimizer = build_optimizer(toy(), TrainingConfig(weight_decay=0.04))
    before = [group["weight_decay"] for group in optimizer.param_groups]
    set_weight_decay(optimizer, 0.1)
    after = [group["weight_decay"] for group in optimizer.param_groups]
    assert sorted(before) == [0.0, 0.04]
    assert sorted(after) == [0.0, 0.1]
    assert weight_decay(7, TrainingConfig(steps=10, weight_decay=0.3)) == 0.3
    # from 0 too
    optimizer = build_optimizer(toy(), TrainingConfig(weight_decay=0, final_weight_decay=0.2))
    set_weight_decay(optimizer, 0.2)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.2]


def test_steps_halve_the_rate_at_the_milestones() -> None:
    """LVM-Med, C.4: halved at 20, 40, 60 and 80 %; Models Genesis: halved every 40 epochs."""
    config = TrainingConfig(steps=100, lr=1.0, warmup=0, schedule="steps")
    rates = [learning_rate(step, config) for step in (0, 19, 20, 40, 60, 79, 80, 99)]
    assert rates == [1, 1, 0.5, 0.25, 0.125, 0.125, 0.0625, 0.0625]


@pytest.mark.parametrize("warmup", [0, 0.1])
def test_poly_is_that_of_nnssl(warmup: float) -> None:
    """lr0 (1 - e / E)^0.9 at step e of E: the last step is not at 0."""
    config = TrainingConfig(steps=1000, lr=1e-2, warmup=warmup, schedule="poly", final_lr=0)
    total = 1000 - round(1000 * warmup)
    for e in (0, total // 2, total - 10, total - 1):
        expected = 1e-2 * (1 - e / total) ** 0.9
        assert learning_rate(1000 - total + e, config) == pytest.approx(expected, rel=1e-12)


def test_nesterov_is_a_choice(toy) -> None:
    for nesterov in (True, False):
        optimizer = build_optimizer(toy(), TrainingConfig(optimizer="sgd", nesterov=nesterov))
        assert optimizer.defaults["nesterov"] is nesterov


def test_larc_by_hand() -> None:
    """Two steps of momentum SGD along a gradient of length trust * |w|; a weight of 0 moves as in SGD."""
    weight, zero = torch.nn.Parameter(torch.tensor([[3.0, 4.0]])), torch.nn.Parameter(torch.zeros(1, 2))
    optimizer = Larc([{"params": [weight, zero], "weight_decay": 0.1}], lr=2.0, momentum=0.5)
    expected, velocity = weight.detach().clone(), torch.zeros(1, 2)
    for _ in range(2):
        weight.grad, zero.grad = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.5, 0.0]])
        adapted = (weight.grad + 0.1 * expected) * 1e-3 * expected.norm() / (2.0 + 0.1 * expected.norm())
        velocity = 0.5 * velocity + adapted
        expected = expected - 2.0 * velocity
        optimizer.step()
    torch.testing.assert_close(weight.data, expected)
    assert zero.data[0, 0] == pytest.approx(-2.0 * (0.5 + 0.25), rel=0.01)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
