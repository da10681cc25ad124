"""Learned prototypes of every cell: the head as 1x1 convolution with evaluation statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medssl.inference.load import LoadedEncoder
from medssl.jobs.progress import Progress, Steps
from medssl.nets.dense import resize

_SLAB_BYTES = 96 * 2**20  # of concatenated features at once


def assign_steps(
    levels: Sequence[Tensor], encoder: LoadedEncoder, shape: tuple[int, ...], modality: str = ""
) -> Steps[NDArray[np.uint16]]:
    """The best prototype of every cell, in slabs along the first axis: (1, *shape) uint16.

    Where training gave each modality prototypes of its own, only those of ``modality`` compete.
    """
    head, prototypes = encoder.head, encoder.prototypes
    if head is None or prototypes is None:
        raise ValueError("these weights have no head or no prototypes")
    block = encoder.prototype_block(modality)
    result = np.empty((1, *shape), np.uint16)
    width = sum(level.shape[1] for level in levels)
    thick = max(1, _SLAB_BYTES // (4 * width * int(np.prod(levels[0].shape[3:]))))
    for low in range(0, shape[0], thick):
        high = min(shape[0], low + thick)
        with torch.inference_mode():
            cells = torch.cat([_slab(level, levels[0].shape[2:], low, high) for level in levels], dim=1)
            scores = prototypes(head(cells.flatten(2)[0].T))  # (cells, K)
            best = (scores[:, block].argmax(1) + block.start).view(high - low, *levels[0].shape[3:])
        result[0, low:high] = best.cpu().numpy()[(slice(None), *(slice(0, n) for n in shape[1:]))]
        yield Progress(high, shape[0], "assigning prototypes")
    return result


def _slab(level: Tensor, fine: Sequence[int], low: int, high: int) -> Tensor:
    """Cells ``low..high`` along the first axis of a level brought to the fine grid."""
    ratio = fine[0] // level.shape[2]
    first = max(0, low // ratio - 1)  # one more cell on each side: linear interpolation reaches no further
    last = min(level.shape[2], -(-high // ratio) + 1)
    piece = level[:, :, first:last]
    if tuple(fine) != tuple(level.shape[2:]):
        piece = resize(piece, ((last - first) * ratio, *fine[1:]))
    return piece[:, :, low - first * ratio : high - first * ratio]
