"""Images with their classes, at the size the encoder sees, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medssl.data.labelled import working_image
from medssl.data.step_batches import StepBatches
from medssl.data.table import Row
from medssl.errors import InputError
from medssl.protocols import Batch
from medssl.store.atomic import naming, save_array
from medssl.volume import Volume
from medssl.volume.resample import interpolate, interpolation_matrices

SIZE = {2: 224, 3: 96}
"""Longest edge in voxels, by dimensions."""


@dataclass(frozen=True, eq=False)
class ClassifiedImage:
    """One image as the classification task sees it.

    Args:
        row: where it came from.
        image: (1, *S) float16 in [0, 1], the whole image.
        spacing: mm per voxel of ``image``.
        target: (K,) bool, which classes are true.
    """

    row: Row
    image: NDArray[np.float16]
    spacing: tuple[float, ...]
    target: NDArray[np.bool_]


def fit_image(
    volume: Volume, spacing_range: tuple[float, float], size: int | None = None
) -> tuple[NDArray[np.float16], tuple[float, ...]]:
    """The whole image (1, *S) normalised, no edge longer than ``size`` voxels, and its spacing in mm.

    Args:
        volume: the image; several channels are averaged.
        spacing_range: of the encoder, mm.
        size: see `SIZE`.
    """
    image, grid = working_image(volume, spacing_range)
    ratio = (size or SIZE[grid.ndim]) / max(grid.shape)
    if ratio < 1:
        smaller = grid.resampled(tuple(max(1, round(n * ratio)) for n in grid.shape))
        image = interpolate(image, interpolation_matrices(grid, smaller)).astype(np.float16)
        grid = smaller
    return image, grid.spacing


def centred(image: NDArray[np.float16], shape: Sequence[int]) -> NDArray[np.float32]:
    """(1, *S) in the middle of zeros (1, *shape); what sticks out is cut off evenly."""
    result = np.zeros((len(image), *shape), np.float32)
    here, there = [], []
    for size, whole in zip(image.shape[1:], shape, strict=True):
        shared = min(size, whole)
        here.append(slice((size - shared) // 2, (size - shared) // 2 + shared))
        there.append(slice((whole - shared) // 2, (whole - shared) // 2 + shared))
    result[(slice(None), *there)] = image[(slice(None), *here)]
    return result


def class_names(rows: Sequence[Row]) -> tuple[str, ...]:
    """Names of the classes in alphabetic order: what output k of a classifier stands for."""
    return tuple(sorted({name for row in rows for name in row.classes}))


def targets(rows: Sequence[Row], names: Sequence[str], multi_label: bool) -> NDArray[np.bool_]:
    """(N, K) which classes are true.

    Raises:
        InputError: no class or several where there is exactly one.
    """
    result = np.zeros((len(rows), len(names)), bool)
    for number, row in enumerate(rows):
        if not multi_label and len(row.classes) != 1:
            raise InputError(
                f"{row.origin}: {len(row.classes)} classes; write exactly one into the column class, or use "
                "--classification.multi-label"
            )
        for name in row.classes:
            result[number, list(names).index(name)] = True
    return result


def to_classified(
    row: Row,
    volume: Volume,
    target: NDArray[np.bool_],
    *,
    spacing_range: tuple[float, float],
    size: int | None = None,
    scratch: Path | None = None,
) -> ClassifiedImage:
    """An image ready for the encoder; with ``scratch`` its voxels lie on disk."""
    image, spacing = fit_image(volume, spacing_range, size)
    if scratch is not None:
        path = scratch / f"{len(list(scratch.iterdir())):06d}-image.npy"
        with naming(path), path.open("wb") as file:
            save_array(file, image)
        image = np.load(path, mmap_mode="r", allow_pickle=False)
    return ClassifiedImage(row, image, spacing, target)


class ClassLoader(StepBatches):
    """Batches of whole images; every image once per epoch.

    Args:
        images: of one dimension.
        shape: voxels per axis of a batch; images lie in the middle.
        batch_size: images per step.
        seed: of the order.
    """

    def __init__(
        self, images: Sequence[ClassifiedImage], shape: tuple[int, ...], batch_size: int, *, seed: int = 0
    ) -> None:
        super().__init__([image.row.modality for image in images], batch_size, seed)
        self.images = tuple(images)
        self.shape = shape

    def batch(self, step: int) -> Batch:
        """Image (B, 1, *shape) and target "class" (B, K) float32, 0 or 1."""
        count = len(self.images)
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        return self.pick([self._order(place // count)[place % count] for place in places])

    def pick(self, numbers: Sequence[int]) -> Batch:
        """The images of these numbers."""
        chosen = [self.images[number] for number in numbers]
        return Batch(
            image=torch.from_numpy(np.stack([centred(own.image, self.shape) for own in chosen])),
            spacing=torch.tensor([own.spacing for own in chosen], dtype=torch.float32),
            modality=torch.tensor([self._modality[number] for number in numbers]),
            index=torch.tensor(list(numbers)),
            targets={"class": torch.from_numpy(np.stack([own.target for own in chosen])).float()},
        )

    def _order(self, epoch: int) -> list[int]:
        order: list[int] = np.random.default_rng([self.seed, epoch]).permutation(len(self.images)).tolist()
        return order
