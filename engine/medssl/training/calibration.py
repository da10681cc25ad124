"""What is fitted after the last step: running statistics and the projection of the dense feature."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.nets.dense import DenseFeatures, fit_projection
from medssl.protocols import Batch

FOREGROUND = 0.05


@torch.no_grad()
def calibrate_norms(module: nn.Module, forward: Callable[[Batch], object], batches: Iterable[Batch]) -> None:
    """Replace the running statistics of batch norm by plain means over ``batches``.

    The moving average that training leaves forgets all but the last few batches and lags behind the
    weights; tiles are normalised by these numbers, so they are measured anew.

    Args:
        module: whose norms are measured; left in evaluation mode.
        forward: one pass in training mode.
        batches: what to pass.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the passes
    module.train()
    for batch in batches:
        forward(batch)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    module.eval()


@torch.no_grad()
def calibrate_projection(
    dense: DenseFeatures, encoder: nn.Module, batches: Iterable[Batch], *, cells: int = 64, seed: int = 0
) -> None:
    """Fit the projection of the dense feature on foreground cells of plain crops.

    Args:
        dense: fitted in place.
        encoder: in evaluation mode.
        batches: crops without augmentation.
        cells: cells taken per crop.
        seed: of the choice of cells.
    """
    generator = torch.Generator().manual_seed(seed)
    taken: list[Tensor] = []
    for batch in batches:
        features = dense.concatenated(encoder(batch.image))  # (B, F, *S / 4)
        bright = (
            F.interpolate(batch.image, size=features.shape[2:], mode="area").flatten(1).cpu() > FOREGROUND
        )
        for sample, mask in zip(features.flatten(2), bright, strict=True):
            (found,) = mask.nonzero(as_tuple=True)
            chosen = found[torch.randperm(len(found), generator=generator)[:cells]]
            taken.append(sample[:, chosen.to(sample.device)].T.cpu())
    fit_projection(dense, taken)
