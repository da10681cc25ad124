"""A network over an image of any size, in overlapping windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from numpy.typing import NDArray
from torch import Tensor

from medssl.jobs.progress import Progress, Steps


def sliding_window(
    image: NDArray[np.float32],
    network: Callable[[Tensor], Tensor],
    size: Sequence[int],
    *,
    overlap: float = 0.25,
    device: str | torch.device = "cpu",
    wanted: NDArray[np.bool_] | None = None,
    phase: str = "predicting",
) -> Steps[Tensor]:
    """Average of all windows that see a voxel, weighted by a Gaussian around their centres.

    The result equals MONAI's `SlidingWindowInferer` in mode "gaussian" with one window at a time; as a
    generator it reports and can be closed after every window, and it can leave out windows.

    Args:
        image: (C, *S) in [0, 1].
        network: (1, C, *size) -> (1, K, *size).
        size: voxels per axis of a window; an axis shorter than it takes one window, padded with zeros.
        overlap: share of a window that the next one sees again, in [0, 1).
        device: where the network is.
        wanted: (*S) voxels that matter; windows without any are left out and stay zero.
        phase: what `Progress` calls it.

    Returns:
        (K, *S) float32 on the CPU.
    """
    shape = image.shape[1:]
    inside = tuple(min(n, s) for n, s in zip(shape, size, strict=True))
    corner: tuple[slice, ...] = tuple(slice(0, n) for n in inside)
    step = tuple(max(1, int(n * (1 - overlap))) for n in inside)
    weight = compute_importance_map(tuple(size), mode="gaussian", sigma_scale=0.125, dtype=torch.float32)
    weight = weight.clamp_min(float(weight[weight > 0].min()))[corner]
    boxes: list[tuple[slice, ...]] = dense_patch_slices(shape, inside, step)
    if wanted is not None:
        boxes = [box for box in boxes if wanted[box].any()]
    total: Tensor | None = None
    count = torch.zeros(shape)
    for number, box in enumerate(boxes, start=1):
        window = np.zeros((len(image), *size), np.float32)
        window[:, *corner] = image[:, *box]
        with torch.no_grad():
            found = network(torch.from_numpy(window)[None].to(device))[0].float().cpu()
            found = found[:, *corner]
            if total is None:
                total = torch.zeros((len(found), *shape))
            total[:, *box] += found * weight
            count[box] += weight
        yield Progress(number, len(boxes), phase)
    if total is None:
        raise ValueError("no window holds a wanted voxel")
    return total.div_(count.clamp_min_(torch.finfo(torch.float32).tiny))
