from __future__ import annotations

import pytest
import torch
from torch import nn

from medssl.methods import METHODS
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import build_encoder
from medssl.protocols import Batch, Losses, Task
from medssl.tasks.hybrid import HybridTask, PairedBatch, PairedLoader, hybrid_weight


class Scaled(nn.Module):
    """A trainable whose loss is a weight times the mean of the encoded image."""

    def __init__(self, backbone: Backbone, factor: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.network = nn.Module()
        self.network.encoder = backbone.encoder
        self.factor = factor
        self.frozen_steps = 0
        self.steps = 0
        self.seen: list[int] = []
        self.after: list[int] = []

    def plan(self, steps: int) -> None:
        self.steps = steps

    def views(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        return batch.image

    def forward(self, views: torch.Tensor, step: int) -> Losses:
        self.seen.append(step)
        total = self.factor * self.backbone.encoder(views).mean()
        return Losses(total, {"loss": total.detach()})

    def after_backward(self, step: int) -> None:
        self.after.append(step)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def metrics(self, prediction: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"same": (prediction == target).float().mean()}


class Counting:
    """Batches whose image is a number that grows."""

    def __init__(self, first: float) -> None:
        self.first = first

    def batches(self, start: int = 0):
        step = start
        while True:
            image = torch.full((1, 1, 2, 2), self.first + step)
            yield Batch(image, torch.ones(1, 2), torch.zeros(1).long(), torch.zeros(1).long())
            step += 1


def parts() -> tuple[Scaled, Scaled]:
    torch.manual_seed(0)
    backbone = Backbone(nn.Conv2d(1, 1, 1, bias=False))
    nn.init.ones_(backbone.encoder.weight)
    return Scaled(backbone, 1.0), Scaled(backbone, 10.0)


def test_weight_grows_to_its_value():
    assert [hybrid_weight(step, 2.0, 4) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert hybrid_weight(0, 2.0, 0) == 2.0
    # 10 steps, up over the first 2, down over the last 4
    falling = [hybrid_weight(step, 2.0, 2, end=10, decay=4) for step in range(11)]
    assert falling == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5, 0.0]


def test_loss_is_the_weighted_sum_and_both_reach_the_encoder():
    task, method = parts()
    hybrid = HybridTask(task, method, weight=0.5)
    assert isinstance(hybrid, Task)
    batch = next(PairedLoader(Counting(0.0), Counting(100.0)).batches(3))
    assert isinstance(batch, PairedBatch)
    losses = hybrid(hybrid.views(batch.to("cpu"), torch.Generator()), 0)
    assert float(losses.total.detach()) == 3 + 0.5 * 10 * 103
    assert float(losses.metrics["supervised"]) == 3
    assert float(losses.metrics["ssl_loss"]) == 1030
    losses.total.backward()
    assert float(task.backbone.encoder.weight.grad) == pytest.approx(3 + 0.5 * 1030)
    hybrid.plan(7)
    hybrid.after_backward(2)
    assert (task.steps, method.steps, method.after) == (7, 7, [2])


def test_weight_zero_is_the_task_alone_and_a_frozen_encoder_rests():
    task, method = parts()
    views = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert torch.equal(HybridTask(task, method, 0.0)(views, 0).total, task(views[0], 0).total)
    task.frozen_steps = 3
    method.seen.clear()
    hybrid = HybridTask(task, method, 1.0, ramp=2)
    hybrid.plan(7)
    assert (task.steps, method.steps) == (7, 4)
    assert [float(hybrid(views, step).total.detach()) for step in range(2, 6)] == [1, 6, 11, 11]
    for step in range(6):
        hybrid.after_backward(step)
    assert method.seen == [0, 1, 2], "the method counts its steps from the end of its rest"
    assert method.after == [0, 1, 2]


class Rested(Scaled):
    """A task that keeps the running statistics of its encoder, as those that start from weights do."""

    def train(self, mode: bool = True) -> Rested:
        super().train(mode)
        self.network.encoder.eval()
        return self


@pytest.mark.parametrize(("name", "copies"), [("byol", "target"), ("moco", "keys")])
def test_a_copy_of_the_encoder_is_the_same_function_while_statistics_rest(name: str, copies: str) -> None:
    torch.manual_seed(0)
    backbone = Backbone(build_encoder("tiny", 2))
    entry = METHODS[name]
    settings = {"hidden": 8, "dim": 4, "views": {"size": 32}}
    method = entry.build(entry.config_class().for_dims(settings, 2), Backbone(backbone.encoder), 1)
    x = torch.rand(4, 1, 32, 32)
    for resting, task in ((True, Rested(backbone, 1.0)), (False, Scaled(backbone, 1.0))):
        hybrid = HybridTask(task, method, 1.0).train()
        copy = getattr(method, copies).copies[0]
        assert copy.encoder.training == (not resting)
        assert torch.equal(copy(x)[-1], method.backbone(x)[-1])
        assert not any(module.training for module in hybrid.eval().modules())


def test_two_encoders_and_single_batches_are_refused():
    (task, _), (_, other) = parts(), parts()
    with pytest.raises(ValueError, match="share one encoder"):
        HybridTask(task, other, 1.0)
    task, method = parts()
    with pytest.raises(ValueError, match="unlabelled images beside"):
        HybridTask(task, method, 1.0).views(
            PairedBatch(torch.ones(1), torch.ones(1), torch.ones(1), torch.ones(1)), torch.Generator()
        )
