"""Activation checkpointing: stages of the encoder are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from medssl.errors import InputError


def recompute(trainable: nn.Module) -> None:
    """Recompute the stages of the encoder, and as a whole every recorded graph that runs its layers.

    A graph (SparK's sparse encoder) never calls the stages. What it saves then is the activations of the
    encoder while those of the decoder are held.

    Args:
        trainable: with ``backbone.encoder``; changed in place.

    Raises:
        InputError: the encoder has no stages.
    """
    encoder = cast("nn.Module", cast("nn.Module", trainable.backbone).encoder)
    recompute_stages(encoder)
    for part in trainable.modules():
        if isinstance(part, fx.GraphModule):
            _recompute(part)


def recompute_stages(encoder: nn.Module) -> int:
    """Let every stage keep only its input and compute the rest again when gradients are needed.

    Memory falls to that of one stage, a step takes about a third longer; loss, gradients and running
    statistics are the same.

    Args:
        encoder: changed in place; its stages are its children, or the entries of a `ModuleList` among them.

    Returns:
        Number of stages.

    Raises:
        InputError: the encoder has no stages.
    """
    stages = [
        stage
        for child in encoder.children()
        for stage in (child if isinstance(child, nn.ModuleList) else [child])
        if any(True for _ in stage.parameters())
    ]
    if not stages:
        raise InputError("training.recompute: the encoder has no stages to recompute; leave it out")
    for stage in stages:
        _recompute(stage)
    return len(stages)


def _recompute(stage: nn.Module) -> None:
    forward = stage.forward

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_at_rest(stage)

    def recomputing(*inputs: Any) -> Any:
        if not (stage.training and torch.is_grad_enabled()):
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)

    stage.forward = recomputing


@contextmanager
def _statistics_at_rest(stage: nn.Module) -> Iterator[None]:
    """Batch norm normalises by its batch, but its running statistics, moved already, stay.

    Not by switching them off: checkpointing wants the same tensors saved in both passes.
    """
    norms = [part for part in stage.modules() if isinstance(part, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, count) in zip(norms, before, strict=True):
        norm.momentum = 0.0
        norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
