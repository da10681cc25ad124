from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medssl.config.training import TrainingConfig
from medssl.errors import InputError
from medssl.jobs.progress import drain
from medssl.protocols import Losses
from medssl.store.runs import Run
from medssl.training import loop
from medssl.training.checkpoint import Keeper, load_checkpoint
from medssl.training.fabric import build_fabric
from medssl.training.loop import fit
from medssl.training.optim import build_optimizer

CONFIG = TrainingConfig(steps=7, batch_size=4, checkpoint_every=3, log_every=2, lr=0.01)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("processes", "wanted", "expected"), [(2, True, True), (2, False, False), (1, True, False)]
)
def test_norms_are_those_of_all_processes_where_there_are_several(
    toy, toy_data, fabric, monkeypatch: pytest.MonkeyPatch, *, processes: int, wanted: bool, expected: bool
) -> None:
    joined: list[torch.nn.Module] = []
    monkeypatch.setattr(loop, "synchronise_norms", joined.append)
    monkeypatch.setattr(type(fabric), "world_size", processes)
    config = CONFIG.model_copy(update={"steps": 1, "sync_norms": wanted})
    trainable = toy()
    drain(fit(trainable, toy_data(), config, fabric=fabric))
    assert joined == [trainable] * expected


@pytest.mark.parametrize(
    ("spatial_dims", "optimizer", "accumulate"),
    [(2, "adamw", 1), (3, "adamw", 1), (3, "sgd", 2), (2, "lamb", 1), (2, "larc", 1)],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, toy, toy_data, fabric, *, spatial_dims: int, optimizer: str, accumulate: int
) -> None:
    config = CONFIG.model_copy(update={"optimizer": optimizer, "accumulate": accumulate})
    data = toy_data(spatial_dims)
    whole = toy(spatial_dims)
    expected = drain(
        fit(whole, data, config, fabric=fabric, run=Run.create(tmp_path / "whole", config), seed=4)
    )
    assert (expected.step, expected.stopped) == (7, "")
    run = Run.create(tmp_path / "parts", config)
    steps = fit(toy(spatial_dims), data, config, fabric=fabric, run=run, seed=4)
    for _ in range(4):
        next(steps)
    steps.close()  # the viewer goes away
    assert run.checkpoints()[-1].name == "step-00000004.pt"
    torch.manual_seed(99)
    resumed = toy(spatial_dims, seed=5)  # other initial weights: all must come from the checkpoint
    result = drain(fit(resumed, data, config, fabric=fabric, run=run, seed=4))
    assert same(whole, resumed)
    assert result.metrics["loss"] == expected.metrics["loss"]
    first, second = load_checkpoint(Run(tmp_path / "whole")), load_checkpoint(run)
    assert first is not None
    assert second is not None
    assert str(first["optimizer"]) == str(second["optimizer"])


def test_micro_batches_and_hook_are_counted(toy, toy_data, fabric) -> None:
    trainable = toy()
    events = list(fit(trainable, toy_data(), CONFIG.model_copy(update={"accumulate": 3}), fabric=fabric))
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 6, 7]
    assert [bool(event.metrics) for event in events] == [False, True, True, True, False, True, True]
    assert trainable.hook_steps == list(range(7))
    assert set(events[-1].metrics) == {"loss", "error", "gradient_norm", "lr", "seconds_per_step"}


def test_another_precision_than_asked_for_is_said(toy, toy_data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    config = CONFIG.model_copy(update={"precision": "bf16-mixed"})
    fabric = build_fabric("cpu", config.precision)
    said = [event.message for event in fit(toy(), toy_data(), config, fabric=fabric) if event.message]
    assert said == [
        "computing in 32-true: a CPU has no 16-mixed, and without AMX wrong gradients in bf16-mixed"
    ]


def test_accumulated_micro_batches_equal_one_large_batch(toy, fabric) -> None:
    class Whole:
        def __init__(self, parts: int) -> None:
            self.parts = parts

        def batches(self, start: int = 0):
            from medssl.protocols import Batch

            image = torch.rand((4, 1, 5, 5), generator=torch.Generator().manual_seed(1))
            zeros = torch.zeros(4, dtype=torch.int64)
            size = 4 // self.parts
            while True:
                for n in range(self.parts):
                    part = slice(n * size, (n + 1) * size)
                    yield Batch(image[part], torch.ones(size, 2), zeros[part], zeros[part])

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = torch.nn.Linear(25, 1)

        def views(self, batch, generator):
            return batch.image.flatten(1)

        def forward(self, views, step):
            return Losses(self.linear(views).square().mean(), {})

    models = []
    for parts in (1, 2):
        model = Plain()
        drain(fit(model, Whole(parts), CONFIG.model_copy(update={"accumulate": parts}), fabric=fabric))
        models.append(model)
    torch.testing.assert_close(models[0].linear.weight, models[1].linear.weight, rtol=1e-4, atol=1e-6)


def test_the_stop_file_ends_after_the_step(tmp_path: Path, toy, toy_data, fabric) -> None:
    run = Run.create(tmp_path / "run", CONFIG)
    steps = fit(toy(), toy_data(), CONFIG, fabric=fabric, run=run)
    next(steps)
    (run.folder / "stop").touch()
    result = drain(steps)
    assert (result.step, result.stopped) == (2, "stop")
    assert run.checkpoints()[-1].name == "step-00000002.pt"
    run.clear_stop()
    assert drain(fit(toy(), toy_data(), CONFIG, fabric=fabric, run=run)).step == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_step_and_handlers_come_back(
    tmp_path: Path, toy, toy_data, fabric, number: int
) -> None:
    before = signal.getsignal(number)
    run = Run.create(tmp_path / "run", CONFIG)
    steps = fit(toy(), toy_data(), CONFIG, fabric=fabric, run=run)
    next(steps)
    os.kill(os.getpid(), number)
    result = drain(steps)
    assert (result.step, result.stopped) == (2, "signal")
    assert run.checkpoints()[-1].name == "step-00000002.pt"
    assert signal.getsignal(number) is before


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(
    tmp_path: Path, toy, toy_data, fabric
) -> None:
    trainable = toy()
    good = trainable.forward

    def bad_from_five(views, step):
        losses = good(views, step)
        return Losses(losses.total * float("nan"), losses.metrics) if step >= 5 else losses

    trainable.forward = bad_from_five
    run = Run.create(tmp_path / "run", CONFIG)
    with pytest.raises(
        InputError, match=r"loss became nan .* step 6; the last good checkpoint is .*00000003"
    ):
        drain(fit(trainable, toy_data(), CONFIG, fabric=fabric, run=run))
    values = load_checkpoint(run)
    assert values is not None
    assert values["step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in values["model"].values())


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, toy, toy_data, fabric) -> None:
    """Unbounded gradients are not watched: a finite loss may come with one that is not."""
    trainable = toy()
    good = trainable.forward

    def bad_gradient_at_five(views, step):
        losses = good(views, step)
        loss = losses.total
        if step == 5:  # 0 * the derivative of a root at 0
            loss = loss + (trainable.head.bias.sum() * 0).sqrt()
        return Losses(loss, losses.metrics)

    trainable.forward = bad_gradient_at_five
    config = CONFIG.model_copy(update={"clip": 0.0, "steps": 6})
    run = Run.create(tmp_path / "run", config)
    with pytest.raises(InputError, match="after step 6 weights are no finite numbers"):
        drain(fit(trainable, toy_data(), config, fabric=fabric, run=run))
    assert [path.name for path in run.checkpoints()] == ["step-00000003.pt"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory"), OSError(28, "full")])
def test_what_ends_a_step_leaves_the_last_checkpoint_and_the_run_goes_on(
    tmp_path: Path, toy, toy_data, fabric, error: Exception
) -> None:
    def once(views, step):
        if step == 5:
            raise error
        return good(views, step)

    trainable = toy()
    good, trainable.forward = trainable.forward, once
    run = Run.create(tmp_path / "run", CONFIG)
    with pytest.raises(type(error)):
        drain(fit(trainable, toy_data(), CONFIG, fabric=fabric, run=run))
    assert [path.name for path in run.checkpoints()] == ["step-00000003.pt"]
    assert [event["step"] for event in run.events()] == [2, 3, 4]
    assert drain(fit(toy(), toy_data(), CONFIG, fabric=fabric, run=run)).step == 7


def test_early_stop_and_events(tmp_path: Path, toy, toy_data, fabric) -> None:
    run = Run.create(tmp_path / "run", CONFIG)
    result = drain(fit(toy(), toy_data(), CONFIG, fabric=fabric, run=run, after_step=lambda step: step == 5))
    assert (result.step, result.stopped) == (5, "early")
    assert [event["step"] for event in run.events()] == [2, 3, 4, 5]
    assert run.events()[0]["total"] == 7
    assert run.events()[-1]["metrics"]["loss"] == result.metrics["loss"]


def test_the_scale_of_half_precision_goes_on(tmp_path: Path, toy, toy_data, fabric, monkeypatch) -> None:
    class Scaled:
        scale = 65536.0

        def state_dict(self):
            return {"scale": self.scale}

        def load_state_dict(self, state):
            self.scale = state["scale"]

    kept, fresh = Scaled(), Scaled()
    kept.scale = 8192.0
    run = Run.create(tmp_path / "run", CONFIG)
    trainable = toy()
    optimizer = build_optimizer(trainable, CONFIG)
    strategy = SimpleNamespace(precision=kept)
    watcher = SimpleNamespace(is_global_zero=True, strategy=strategy)
    Keeper(watcher, run, trainable, optimizer, 1).save(3)
    strategy.precision = fresh
    assert Keeper(watcher, run, trainable, optimizer, 1).resume() == 3
    assert fresh.scale == 8192.0
