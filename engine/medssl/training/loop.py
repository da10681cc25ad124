"""The one training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medssl.config.training import TrainingConfig
from medssl.jobs.progress import Progress, Steps
from medssl.nets.synced_norm import synchronise_norms
from medssl.protocols import Batch, Losses
from medssl.store.runs import Run
from medssl.training.board import tensorboard
from medssl.training.checkpoint import Keeper
from medssl.training.interrupt import Interrupt
from medssl.training.meter import Meter
from medssl.training.optim import (
    build_optimizer,
    learning_rate,
    set_learning_rate,
    set_weight_decay,
    weight_decay,
)
from medssl.training.recompute import recompute

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.wrappers import _FabricModule

_LOG_SECONDS = 5.0


class Batches(Protocol):
    """Where batches come from: batch n is the same whatever was read before."""

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batch ``start`` and those after it, without end."""
        ...


@dataclass(frozen=True)
class FitResult:
    """How training ended.

    Args:
        step: finished steps.
        metrics: means over the last logged interval.
        stopped: "" when all steps are done, "stop" on request, "early" by ``after_step``, "signal" on
            Ctrl-C or SIGTERM.
    """

    step: int
    metrics: dict[str, float]
    stopped: str = ""


def fit(
    trainable: nn.Module,
    data: Batches,
    config: TrainingConfig,
    *,
    fabric: Fabric,
    run: Run | None = None,
    seed: int = 0,
    optimizer: Optimizer | None = None,
    after_step: Callable[[int], bool] | None = None,
) -> Steps[FitResult]:
    """Train; a run that has checkpoints goes on from the newest one, exactly as if it had not stopped.

    Every random draw of the views comes from a generator seeded by seed and micro-batch; what a forward
    draws from torch's global generator is restored from the checkpoint. Closing the generator saves.

    Args:
        trainable: a `medssl.protocols.Trainable`; maybe with ``after_backward(step)``.
        data: batches by number.
        config: steps, optimiser, logging.
        fabric: device, precision, processes.
        run: folder for events and checkpoints; None keeps nothing.
        seed: of the views.
        optimizer: in place of the one of ``config``.
        after_step: called with the number of finished steps; true ends training (early stop).

    Raises:
        InputError: the loss is not finite, or a checkpoint does not fit. The last good checkpoint stays.
    """
    if config.channels_last:
        _channels_last(trainable)
    trainable.train()
    if (plan := getattr(trainable, "plan", None)) is not None:
        plan(config.steps)
    if config.recompute:
        recompute(trainable)
    if config.sync_norms and fabric.world_size > 1:
        synchronise_norms(trainable)
    inner = cast("nn.Module", torch.compile(trainable)) if config.compile else trainable
    model, optimizer = fabric.setup(_Step(inner), optimizer or build_optimizer(trainable, config))
    keeper = Keeper(fabric, run, trainable, optimizer, config.keep)
    step = keeper.resume()
    if (used := fabric.strategy.precision.precision) != config.precision:
        said = f"computing in {used}: a CPU has no 16-mixed, and without AMX wrong gradients in bf16-mixed"
        yield Progress(step, config.steps, "training", message=said, notice=True)
    batches = data.batches(step * config.accumulate)
    passes = _Passes(fabric, trainable, model, batches, accumulate=config.accumulate, seed=seed)
    # with 16-mixed a gradient that is not finite is ordinary: the scaler skips that step
    watched = ("loss",) if config.precision == "16-mixed" or not config.clip else ("loss", "gradient_norm")
    meter = Meter(config.steps, run if fabric.is_global_zero else None, watched)
    stopped = ""
    board = run.folder / "tensorboard" if config.tensorboard and run and fabric.is_global_zero else None
    with Interrupt() as interrupt, tensorboard(board, step) as log:
        try:
            while step < config.steps and not stopped:
                rate = learning_rate(step, config)
                set_learning_rate(optimizer, rate)
                if config.final_weight_decay is not None:
                    set_weight_decay(optimizer, weight_decay(step, config))
                passes.run(step, meter)
                if config.clip > 0:
                    norm = fabric.clip_gradients(
                        model, optimizer, max_norm=config.clip, error_if_nonfinite=False
                    )
                    meter.add({"gradient_norm": cast("Tensor", norm)})
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step += 1
                stopped = _why_stop(fabric, interrupt, run, after_step is not None and after_step(step))
                save = step % config.checkpoint_every == 0 or step == config.steps or stopped != ""
                metrics: dict[str, float] = {}
                if save or step % config.log_every == 0 or meter.seconds > _LOG_SECONDS:
                    metrics = meter.take(step, rate)  # refuses a bad loss before anything is saved
                    log(step, metrics)
                if save:
                    keeper.save(step)
                yield Progress(step, config.steps, "training", metrics)
        except GeneratorExit:
            if meter.is_sound:
                keeper.save(step)
            raise
    return FitResult(step, meter.last, stopped)


class _Opaque:
    """Views of any type. Not a dataclass: Fabric looks into those, and stumbles over frozen ones."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Step(nn.Module):
    """The trainable as Fabric and DDP want it: tensors and dicts out."""

    def __init__(self, trainable: nn.Module) -> None:
        super().__init__()
        self.trainable = trainable

    def forward(self, views: _Opaque, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        losses: Losses = self.trainable(views.value, step)
        return losses.total, dict(losses.metrics)


class _Passes:
    """Forward and backward of all micro-batches of a step."""

    def __init__(
        self,
        fabric: Fabric,
        trainable: nn.Module,
        model: _FabricModule,
        batches: Iterator[Batch],
        *,
        accumulate: int,
        seed: int,
    ) -> None:
        self._fabric = fabric
        self._views = trainable.views
        self._hook = getattr(trainable, "after_backward", None)
        self._model = model
        self._batches = batches
        self._accumulate = accumulate
        self._seed = seed * 1_000_003 + fabric.global_rank
        self._generator = torch.Generator(device=fabric.device)

    def run(self, step: int, meter: Meter) -> None:
        for part in range(self._accumulate):
            micro = step * self._accumulate + part
            batch = next(self._batches).to(self._fabric.device)
            self._generator.manual_seed(((self._seed << 24) + micro) % 2**63)
            views = self._views(batch, self._generator)  # type: ignore[operator]
            # processes exchange gradients once per step, not once per micro-batch
            is_last = part == self._accumulate - 1
            with nullcontext() if is_last else self._fabric.no_backward_sync(self._model):
                total, metrics = self._model(_Opaque(views), step)
                self._fabric.backward(total / self._accumulate)
            meter.add({**metrics, "loss": total})
        if self._hook is not None:
            self._hook(step)


def _why_stop(fabric: Fabric, interrupt: Interrupt, run: Run | None, early: bool) -> str:
    reason = "early" if early else ""
    if interrupt.received is not None:
        reason = "signal"
    elif run is not None and run.stop_requested:
        reason = "stop"
    # all processes must leave at the same step, or the others wait for ever
    return fabric.broadcast(reason) if fabric.world_size > 1 else reason


def _channels_last(module: nn.Module) -> None:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.to(memory_format=formats[parameter.ndim])
