"""Patches of volumes with boxes, around boxes and elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from medssl.data.boxed import BoxedVolume
from medssl.data.step_batches import StepBatches, corner_around, cut
from medssl.errors import InputError
from medssl.protocols import Batch

EMPTY, IGNORED = -1, -2
"""Classes of a padding entry, and of a box whose centre lies outside the patch: neither hit nor miss."""


class BoxPatchLoader(StepBatches):
    """Batches of patches.

    Args:
        volumes: of one dimension.
        crop: voxels per axis of a patch.
        batch_size: patches per step.
        seed: of all draws.
        foreground: share of patches that hold the centre of a drawn box, at a random place; each class is
            drawn equally often. The others lie anywhere in a drawn volume.

    Raises:
        InputError: no volume, or none with a box.
    """

    def __init__(
        self,
        volumes: Sequence[BoxedVolume],
        crop: tuple[int, ...],
        batch_size: int,
        *,
        seed: int = 0,
        foreground: float = 0.8,
    ) -> None:
        if not volumes:
            raise InputError("there is no scan with boxes to train on")
        super().__init__([volume.row.modality for volume in volumes], batch_size, seed)
        self.volumes = tuple(volumes)
        self.crop = crop
        self.foreground = foreground
        self._places: dict[int, list[tuple[int, int]]] = {}
        for number, volume in enumerate(volumes):
            for box, index in enumerate(volume.classes.tolist()):
                self._places.setdefault(index, []).append((number, box))
        if not self._places:
            raise InputError(f"{volumes[0].row.origin}: no scan has a box; detection learns from boxes")

    def batch(self, step: int) -> Batch:
        """The patches of one step.

        Image (B, 1, *crop); targets "boxes" (B, M, 2 n) float32 in voxels of the patch and "classes"
        (B, M) int64, `EMPTY` where an image has fewer boxes than M, `IGNORED` where a box is cut off.
        """
        rng = np.random.default_rng([self.seed, step])
        images, boxes, classes, chosen = [], [], [], []
        for _ in range(self.batch_size):
            number, corner = self._draw(rng)
            image, own, index = self._cut(self.volumes[number], corner)
            images.append(image)
            boxes.append(own)
            classes.append(index)
            chosen.append(number)
        most = max([1, *map(len, boxes)])
        padded = np.zeros((len(boxes), most, 2 * len(self.crop)), np.float32)
        padded[..., len(self.crop) :] = 1
        known = np.full((len(boxes), most), EMPTY, np.int64)
        for sample, (own, index) in enumerate(zip(boxes, classes, strict=True)):
            padded[sample, : len(own)], known[sample, : len(own)] = own, index
        return Batch(
            image=torch.from_numpy(np.stack(images)),
            spacing=torch.tensor([self.volumes[n].grid.spacing for n in chosen], dtype=torch.float32),
            modality=torch.tensor([self._modality[n] for n in chosen]),
            index=torch.tensor(chosen),
            targets={"boxes": torch.from_numpy(padded), "classes": torch.from_numpy(known)},
        )

    def _draw(self, rng: np.random.Generator) -> tuple[int, tuple[int, ...]]:
        """A volume and the first voxel of a patch in it."""
        if rng.random() < self.foreground:
            names = sorted(self._places)
            places = self._places[names[int(rng.integers(len(names)))]]
            number, box = places[int(rng.integers(len(places)))]
            edges = self.volumes[number].boxes[box].reshape(2, -1)
            centre = np.floor(edges.mean(axis=0)).astype(int)
        else:
            number = int(rng.integers(len(self.volumes)))
            centre = np.array([int(rng.integers(size)) for size in self.volumes[number].grid.shape])
        return number, corner_around(centre, self.crop, self.volumes[number].grid.shape, rng)

    def _cut(
        self, volume: BoxedVolume, corner: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        size, start = np.asarray(self.crop), np.asarray(corner)
        inside, target = cut(corner, self.crop, volume.grid.shape)
        image = np.zeros((len(volume.image), *self.crop), np.float32)
        image[(slice(None), *target)] = volume.image[(slice(None), *inside)]
        boxes = volume.boxes - np.concatenate([start, start])
        low, high = boxes[:, : len(size)], boxes[:, len(size) :]
        touches = ((high > 0) & (low < size)).all(axis=1)
        centre = (low + high) / 2
        holds = ((centre >= 0) & (centre < size)).all(axis=1)
        classes = np.where(holds, volume.classes, IGNORED)
        return image, boxes[touches].astype(np.float32), classes[touches]
