"""Patches of labelled volumes, with every class seen equally often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from medssl.data.labelled import UNLABELLED, LabelledVolume, to_indices
from medssl.data.step_batches import StepBatches, corner_around, cut
from medssl.errors import InputError
from medssl.protocols import Batch

_PLACES = 4000
"""Voxels remembered per class and volume as places to cut around."""


class PatchLoader(StepBatches):
    """Batches of patches.

    A sample first draws a volume, then one of the classes that the volume holds, then a voxel of this
    class, and cuts a patch that holds it at a random place. Beyond the volume lie zeros without label.

    Args:
        volumes: labelled volumes of one dimension.
        values: mask value of each class index.
        crop: voxels per axis of a patch.
        batch_size: patches per step.
        seed: of all draws.
        foreground: share of patches around a voxel of a drawn class; the others lie around any
            labelled voxel.

    Raises:
        InputError: a volume without a labelled voxel, or none at all.
    """

    def __init__(
        self,
        volumes: Sequence[LabelledVolume],
        values: Sequence[int],
        crop: tuple[int, ...],
        batch_size: int,
        *,
        seed: int = 0,
        foreground: float = 0.8,
    ) -> None:
        if not volumes:
            raise InputError("there is no labelled volume to train on")
        super().__init__([volume.row.modality for volume in volumes], batch_size, seed)
        self.volumes = tuple(volumes)
        self.values = tuple(values)
        self.crop = crop
        self.foreground = foreground
        self._places = [_places(volume, np.random.default_rng([seed, n])) for n, volume in enumerate(volumes)]

    def batch(self, step: int) -> Batch:
        """The patches of one step: image (B, 1, *crop), label (B, 1, *crop) index, -1 unlabelled."""
        rng = np.random.default_rng([self.seed, step])
        images, labels, chosen = [], [], []
        for _ in range(self.batch_size):
            number = int(rng.integers(len(self.volumes)))
            places = self._places[number]
            classes = list(places)
            weights = np.array([len(places[c]) for c in classes], float)
            if rng.random() < self.foreground:
                weights[:] = 1
            around = places[int(rng.choice(classes, p=weights / weights.sum()))]
            centre = around[int(rng.integers(len(around)))]
            corner = corner_around(centre, self.crop, self.volumes[number].grid.shape, rng)
            image, label = self._cut(self.volumes[number], corner)
            images.append(image)
            labels.append(label)
            chosen.append(number)
        return Batch(
            image=torch.from_numpy(np.stack(images)),
            spacing=torch.tensor([self.volumes[n].grid.spacing for n in chosen], dtype=torch.float32),
            modality=torch.tensor([self._modality[n] for n in chosen]),
            index=torch.tensor(chosen),
            label=torch.from_numpy(np.stack(labels)[:, None].astype(np.int64)),
        )

    def _cut(
        self, volume: LabelledVolume, corner: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        inside, target = cut(corner, self.crop, volume.grid.shape)
        image = np.zeros((len(volume.image), *self.crop), np.float32)
        label = np.full(self.crop, UNLABELLED, np.int16)
        image[(slice(None), *target)] = volume.image[(slice(None), *inside)]
        label[target] = to_indices(volume.label[inside], self.values)
        return image, label


def _places(volume: LabelledVolume, rng: np.random.Generator) -> dict[int, NDArray[np.intp]]:
    """Up to `_PLACES` voxels (N, n) of each class in the volume."""
    flat = volume.label.reshape(-1)
    places = {}
    for index in np.unique(flat):
        if index == UNLABELLED:
            continue
        hits = np.flatnonzero(flat == index)
        if len(hits) > _PLACES:
            hits = rng.choice(hits, _PLACES, replace=False)
        places[int(index)] = np.stack(np.unravel_index(hits, volume.label.shape), axis=1)
    if not places:
        raise InputError(f"{volume.row.origin}: no labelled voxel in {volume.row.label}; paint some first")
    return places
