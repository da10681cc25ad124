"""Settings of the training loop, the same for every method and task."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medssl.config.run import RunConfig


class TrainingConfig(RunConfig):
    """How long, how fast and how safely to train."""

    steps: int = Field(1000, ge=1, description="optimiser steps")
    batch_size: int = Field(16, ge=1, description="crops per micro-batch, over all processes")
    accumulate: int = Field(1, ge=1, description="micro-batches per optimiser step")
    optimizer: Literal["adamw", "sgd", "lamb", "larc"] = Field(
        "adamw",
        description="optimiser; larc is sgd whose steps follow the length of each weight (SwAV: 0.6 at a "
        "batch of 256, weight_decay 1e-6)",
    )
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    schedule: Literal["cosine", "poly", "steps"] = Field(
        "cosine",
        description="learning rate after the warm-up: half a cosine, the power 0.9 of what is left of the "
        "run, or lower from each milestone on",
    )
    final_lr: float = Field(
        0.01, ge=0, le=1, description="learning rate at the end, relative to the peak; not of schedule steps"
    )
    milestones: tuple[float, ...] = Field(
        (0.2, 0.4, 0.6, 0.8), description="shares of the run at which schedule steps lowers the learning rate"
    )
    step_factor: float = Field(
        0.5, gt=0, le=1, description="factor of each of them (LVM-Med and Models Genesis: 0.5)"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps with a linear warm-up")
    warmup_start: float | None = Field(
        None,
        ge=0,
        le=1,
        description="learning rate of the first step, relative to the peak; by default one step of the "
        "warm-up (SparK: 0.005)",
    )
    weight_decay: float = Field(
        0.04, ge=0, description="decoupled weight decay; never on norms, biases and prototypes"
    )
    final_weight_decay: float | None = Field(
        None,
        ge=0,
        description="weight decay at the end, reached along half a cosine; by default it stays (SparK: 0.2)",
    )
    momentum: float = Field(
        0.9, ge=0, lt=1, description="momentum of sgd and larc, first beta of adamw and lamb"
    )
    nesterov: bool = Field(True, description="Nesterov momentum of sgd (Models Genesis: false)")
    beta2: float = Field(0.99, ge=0, lt=1, description="second beta of adamw and lamb")
    clip: float = Field(3.0, ge=0, description="largest gradient norm; 0 does not clip")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        "32-true",
        description="arithmetic of the forward pass; mixed precision pays on a GPU and, bf16, on a CPU with "
        "AMX; on other CPUs bf16-mixed computes in 32-true and says so",
    )
    compile: bool = Field(False, description="torch.compile the trainable: pays on long GPU runs")
    channels_last: bool = Field(False, description="channels-last memory format, faster convolutions")
    recompute: bool = Field(
        False,
        description="activation checkpointing: stages of the encoder are computed again in the backward "
        "pass; less memory, a third more time",
    )
    sync_norms: bool = Field(
        True, description="with several processes, batch norm over the batch of all of them"
    )
    tensorboard: bool = Field(
        False, description="log the metrics for TensorBoard too, into the folder tensorboard of the run"
    )
    log_every: int = Field(10, ge=1, description="steps between two logged means of the metrics")
    checkpoint_every: int = Field(500, ge=1, description="steps between two checkpoints")
    keep: int = Field(2, ge=1, description="checkpoints kept, newest first")
