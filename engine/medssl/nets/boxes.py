"""From the dense answer of a detection network to a short list of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.data.box_utils import batched_nms
from torch import Tensor

from medssl.nets.detection import DenseBoxes


@dataclass(frozen=True)
class Found:
    """Boxes of one image, best first.

    Args:
        boxes: (N, 2 n) starts and stops in voxels, voxel i spanning [i, i + 1).
        scores: (N,) in [0, 1].
        classes: (N,) int64.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def cpu(self) -> Found:
        """The same boxes on the CPU, float32."""
        return Found(self.boxes.float().cpu(), self.scores.float().cpu(), self.classes.cpu())

    def take(self, index: Tensor) -> Found:
        """The boxes at ``index``: positions, or a mask."""
        return Found(self.boxes[index], self.scores[index], self.classes[index])


def candidates(levels: Sequence[DenseBoxes], least_score: float, most: int) -> list[Found]:
    """The best cells of every image of the batch, all levels together, nothing suppressed yet.

    Args:
        levels: from `DetectionNetwork`.
        least_score: cells below it are left out.
        most: cells kept per level.
    """
    result = []
    dense = [(level.logits.sigmoid(), level.boxes()) for level in levels]
    for sample in range(len(levels[0].logits)):
        parts = []
        for scores, boxes in dense:
            flat = scores[sample].flatten(1)  # (K, cells)
            best, place = flat.flatten().topk(min(most, flat.numel()))
            place = place[best >= least_score]
            cells = place % flat.shape[1]
            found = boxes[sample].flatten(1)[:, cells].T
            parts.append((found, best[best >= least_score], place // flat.shape[1]))
        result.append(Found(*(torch.cat(kind) for kind in zip(*parts, strict=True))))
    return result


def join(parts: Sequence[Found]) -> Found:
    """All boxes of several lists (at least one)."""
    return Found(
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.scores for part in parts]),
        torch.cat([part.classes for part in parts]),
    )


def suppress(found: Found, overlap: float, most: int) -> Found:
    """Greedy non-maximum suppression within each class, best first.

    Args:
        found: boxes in any order.
        overlap: IoU above which the weaker box is dropped.
        most: boxes kept.
    """
    if not len(found):
        return found
    # MONAI shifts each class by the largest coordinate plus one, which needs coordinates from 0
    boxes = found.boxes - found.boxes.amin()
    kept = batched_nms(boxes, found.scores, found.classes, overlap, max_proposals=most)
    return found.take(kept[found.scores[kept].argsort(descending=True, stable=True)])
