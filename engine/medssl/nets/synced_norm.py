"""Batch norm over the batch of all processes, on any device."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SyncedBatchNorm(_BatchNorm):
    """Batch norm whose statistics in training mode are those of all processes together.

    What `torch.nn.SyncBatchNorm` does on GPUs, in operations that every device has; same state dict as
    plain batch norm. A collective call in forward and in backward. With one process, and in evaluation
    mode, it is plain batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any (B, C, *S) will do."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, *S) -> the same shape."""
        if not (self.training and dist.is_available() and dist.is_initialized()):
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [0, *range(2, x.ndim)]
        shape = (1, -1, *(1,) * (x.ndim - 2))
        count = x.new_tensor([x.numel() / x.shape[1]])
        total = _sum_over_world(torch.cat([x.sum(axes), count]))  # (C + 1,)
        mean, count = total[:-1] / total[-1], total[-1].detach()
        centred = x - mean.view(shape)
        variance = _sum_over_world(centred.square().sum(axes)) / count  # (C,)
        self._follow(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        share = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if share is None else share
        self.running_mean.lerp_(mean.to(self.running_mean), 0.0 if share is None else share)
        self.running_var.lerp_(variance.to(self.running_var), 0.0 if share is None else share)


def synchronise_norms(module: nn.Module) -> None:
    """Replace every plain batch norm inside ``module`` by a synchronised one, parameters and buffers kept.

    Subclasses (sparse norms) are left as they are.

    Args:
        module: changed in place.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in _PLAIN:
                setattr(parent, name, _synchronised(child))


def _synchronised(norm: nn.Module) -> SyncedBatchNorm:
    if not isinstance(norm, _BatchNorm):
        raise TypeError(f"{type(norm).__name__} is no batch norm")
    synced = SyncedBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    # the very same tensors, so that an optimiser that knows them stays right
    synced._parameters, synced._buffers = norm._parameters, norm._buffers
    return synced.train(norm.training)


def _sum_over_world(x: Tensor) -> Tensor:
    """Sum over processes; the gradient is the sum of what all of them derive."""
    return _Sum.apply(x)  # type: ignore[no-any-return,no-untyped-call]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
