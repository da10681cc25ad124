"""What a dense detector should say in every cell: a Gaussian at each centre, and which box to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medssl.nets.detection import middles


@dataclass(frozen=True)
class CentreTarget:
    """The target of one level.

    Args:
        heat: (B, K, *F) in [0, 1]; 1 in the cells nearest to a centre.
        judged: (B, 1, *F) 0 where a cut-off box lies, else 1.
        box: (B, 2 n, *F) starts and stops in voxels of the box a cell should draw.
        weight: (B, *F) weight of the cell in the box loss, 0 in most.
    """

    heat: Tensor
    judged: Tensor
    box: Tensor
    weight: Tensor


def level_of(boxes: Tensor, strides: Sequence[Sequence[int]], cells_per_box: float) -> Tensor:
    """The level (M,) on which a box is about ``cells_per_box`` cells wide, in the geometric mean.

    Args:
        boxes: (M, 2 n) starts and stops in voxels.
        strides: voxels per cell of every level, finest first.
        cells_per_box: wanted width.
    """
    n = boxes.shape[1] // 2
    edge = (boxes[:, n:] - boxes[:, :n]).clamp(min=1e-3).log().mean(dim=1)
    wanted = torch.tensor([sum(map(math.log, s)) / n for s in strides], device=boxes.device)
    return (edge[:, None] - wanted - math.log(cells_per_box)).abs().argmin(dim=1)


def centre_targets(
    boxes: Tensor,
    classes: Tensor,
    shapes: Sequence[Sequence[int]],
    strides: Sequence[Sequence[int]],
    *,
    class_count: int,
    cells_per_box: float = 4.0,
    blur: float = 0.6,
) -> list[CentreTarget]:
    """Targets of all levels.

    A box is a Gaussian on one level, with standard deviation ``max(edge / 6, blur)`` cells along each axis,
    scaled to 1 in the nearest cell (in several, where the centre lies between them). Cells above one half
    draw the box, weighted by the Gaussian (Liu et al., "Training-time-friendly network", 2020, 3.2-3.3).

    Args:
        boxes: (B, M, 2 n) in voxels.
        classes: (B, M) class index; -1 is padding, -2 a box that is neither hit nor miss.
        shapes: cells of every level.
        strides: voxels per cell of every level, finest first.
        class_count: K.
        cells_per_box: see `level_of`.
        blur: least standard deviation, cells.
    """
    result = []
    levels = [level_of(sample, strides, cells_per_box) for sample in boxes]
    for index, (shape, stride) in enumerate(zip(shapes, strides, strict=True)):
        samples = [
            _one(own, names, level == index, shape, stride, class_count=class_count, blur=blur)
            for own, names, level in zip(boxes, classes, levels, strict=True)
        ]
        result.append(CentreTarget(*(torch.stack(part) for part in zip(*samples, strict=True))))
    return result


def _one(
    boxes: Tensor,
    classes: Tensor,
    here: Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    *,
    class_count: int,
    blur: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Heat (K, *F), judged (1, *F), box (2 n, *F) and weight (*F) of one image on one level."""
    n, device = len(shape), boxes.device
    step = boxes.new_tensor(stride)
    judged = torch.ones((1, *shape), device=device)
    place = middles(shape, device)
    for box in boxes[classes == -2] / torch.cat([step, step]):
        low, high = (edge.view(-1, *(1,) * n) for edge in box.split(n))
        judged[0, ((place > low - 0.5) & (place < high + 0.5)).all(dim=0)] = 0
    heat = torch.zeros((class_count, *shape), device=device)
    target = torch.zeros((2 * n, *shape), device=device)
    weight = torch.zeros(tuple(shape), device=device)
    known = here & (classes >= 0)
    own, names = boxes[known], classes[known]
    if not len(own):
        return heat, judged, target, weight
    centre = (own[:, :n] + own[:, n:]) / 2 / step
    spread = ((own[:, n:] - own[:, :n]) / step / 6).clamp(min=blur)
    distance = _distance(centre, spread, shape)  # (M, *F)
    nearest = distance.flatten(1).amin(dim=1).view(-1, *(1,) * n)
    gauss = (-(distance - nearest) / 2).exp()
    gauss[distance <= nearest + 1e-4] = 1
    for index in range(class_count):
        if (names == index).any():
            heat[index] = gauss[names == index].amax(dim=0)
    best, which = gauss.max(dim=0)
    chosen = best > 0.5
    target[:, chosen] = own[which[chosen]].T
    weight[chosen] = best[chosen]
    return heat, judged, target, weight


def _distance(centre: Tensor, spread: Tensor, shape: Sequence[int]) -> Tensor:
    """(M, *F) squared distance of every cell's middle from each centre, in standard deviations."""
    total = centre.new_zeros((len(centre), *(1,) * len(shape)))
    for axis, size in enumerate(shape):
        middle = torch.arange(size, device=centre.device) + 0.5
        square = ((middle[None] - centre[:, axis, None]) / spread[:, axis, None]).square()
        total = total + square.view(len(centre), *(size if d == axis else 1 for d in range(len(shape))))
    return total
