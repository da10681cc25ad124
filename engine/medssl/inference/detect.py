"""Volume + weights of a detector -> boxes with scores on the volume's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from medssl.config.detection import DetectionConfig
from medssl.errors import InputError
from medssl.inference.segment import task_of, window_size, working_image
from medssl.jobs.progress import Progress, Steps
from medssl.nets.boxes import Found, candidates, join, suppress
from medssl.nets.detection import DetectionNetwork
from medssl.nets.encoders import restore_encoder
from medssl.store.weights import WeightsRecord
from medssl.volume import Geometry, Volume
from medssl.volume.regions import Box
from medssl.volume.working_grid import SPACING_RANGE

WINDOW = {2: 512, 3: 96}
"""Edge of the tiles in voxels, by dimensions."""

_CANDIDATES = 300  # best cells per level and tile


@dataclass(frozen=True, eq=False)
class Detector:
    """A detection network in evaluation mode, and what its channels stand for.

    Args:
        network: scores and boxes of the classes.
        names: class of each channel.
        settings: suppression, least score, number of boxes.
        spacing_range: of the working grid, mm.
        name: how the user called the weights.
    """

    network: DetectionNetwork
    names: tuple[str, ...]
    settings: DetectionConfig
    spacing_range: tuple[float, float] = SPACING_RANGE
    name: str = ""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.network.parameters()).device


def load_detector(record: WeightsRecord, device: str | torch.device = "cpu") -> Detector:
    """A detector from the file that `medssl finetune detection` exports.

    Raises:
        InputError: other weights, or header and tensors do not fit.
    """
    task = task_of(record)
    if task.get("name") != "detection":
        raise InputError(f"{record.name}: made for {task.get('name')}, not for detection")
    tensors = load_file(record.path)
    try:
        network = DetectionNetwork(restore_encoder(record.metadata["encoder"]), **task["network"])
        own = {k: v for k, v in tensors.items() if k.startswith(("backbone.", "detection."))}
        result = network.load_state_dict(own, strict=False)
        missing = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        names = tuple(str(entry["name"]) for entry in task["classes"])
        settings = DetectionConfig.model_validate(task.get("settings", {}))
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{record.path}: header and tensors do not fit ({reason}); export again") from error
    low, high = record.metadata["preprocessing"].get("spacing_range", SPACING_RANGE)
    network.eval().requires_grad_(False).to(device)
    return Detector(network, names, settings, (float(low), float(high)), record.name)


def detect_steps(
    volume: Volume, detector: Detector, *, overlap: float = 0.25, window: int | None = None
) -> Steps[list[Box]]:
    """Find boxes: working grid, overlapping tiles, suppression over all, back to the volume's own voxels.

    A tile keeps the boxes whose centre is nearer to its middle than to that of the next tile, so an object
    on a border is not found in two halves.

    Args:
        volume: (C, *S) scan; several channels are averaged.
        detector: from `load_detector`; its device does the work.
        overlap: of the tiles, in [0, 1).
        window: edge of the tiles, voxels of the working grid.

    Returns:
        Boxes with class and score, best first, inside the volume.

    Raises:
        InputError: the volume has other dimensions than the network.
    """
    n = detector.network.encoder.spatial_dims
    if volume.spatial_dims != n:
        raise InputError(
            f"{volume.id or 'the image'} has {volume.spatial_dims} dimensions and the model "
            f"{detector.name!r} is for {n}; choose another model"
        )
    image, grid = working_image(volume, detector.spacing_range)
    size = window_size(grid.shape, detector.network.multiple, window or WINDOW[n])
    axes = [
        tiles_of_axis(whole, edge, overlap, multiple)
        for whole, edge, multiple in zip(grid.shape, size, detector.network.multiple, strict=True)
    ]
    parts: list[Found] = []
    boxes = list(product(*axes))
    for number, tile in enumerate(boxes, start=1):
        firsts = [first for first, _, _ in tile]
        part = np.zeros((len(image), *size), np.float32)
        cut = image[(slice(None), *(slice(a, a + edge) for a, edge in zip(firsts, size, strict=True)))]
        part[(slice(None), *map(slice, cut.shape[1:]))] = cut
        with torch.no_grad():
            levels = detector.network(torch.from_numpy(part)[None].to(detector.device))
            (found,) = candidates(levels, detector.settings.least_score, _CANDIDATES)
        found = found.cpu()
        shifted = found.boxes + torch.tensor([*firsts, *firsts])
        centre = (shifted[:, :n] + shifted[:, n:]) / 2
        low, high = (torch.tensor([core[i] for core in tile], dtype=torch.float32) for i in (1, 2))
        mine = ((centre >= low) & (centre < high)).all(dim=1)
        parts.append(Found(shifted, found.scores, found.classes).take(mine))
        yield Progress(number, len(boxes), "detecting")
    settings = detector.settings
    best = suppress(join(parts), settings.suppression, settings.most_boxes)
    return to_boxes(best, detector.names, grid, volume.geometry)


def tiles_of_axis(whole: int, edge: int, overlap: float, multiple: int) -> list[tuple[int, float, float]]:
    """First voxel of every tile along an axis, and the range in which it may keep centres.

    Tiles begin on a multiple of the coarsest stride, so that their cells are those of one pass; the last
    one may stick out.

    Args:
        whole: voxels of the axis.
        edge: voxels of a tile, a multiple of ``multiple``.
        overlap: share that two neighbours have in common at least, where the edge leaves room for it.
        multiple: voxels per cell of the coarsest level.
    """
    step = max(multiple, int(edge * (1 - overlap)) // multiple * multiple)
    last = -(-max(0, whole - edge) // multiple) * multiple
    firsts = [*range(0, last, step), last]
    borders = [0.0, *((a + edge + b) / 2 for a, b in pairwise(firsts)), float(whole)]
    return list(zip(firsts, borders, borders[1:], strict=False))


def to_boxes(found: Found, names: Sequence[str], grid: Geometry, target: Geometry) -> list[Box]:
    """Boxes on another grid that fills the same space, rounded to whole voxels inside it."""
    ratio = np.asarray(target.shape) / np.asarray(grid.shape)
    shape = np.asarray(target.shape)
    boxes = []
    for edges, score, index in zip(found.boxes.numpy(), found.scores, found.classes, strict=True):
        low, high = _whole(edges[: len(shape)] * ratio, edges[len(shape) :] * ratio, shape)
        label = names[int(index)]
        boxes.append(Box(tuple(low.tolist()), tuple(high.tolist()), label, round(float(score), 6)))
    return boxes


def _whole(
    low: NDArray[np.floating], high: NDArray[np.floating], shape: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The nearest voxel edges, at least one voxel apart, inside the volume."""
    start = np.rint(low).astype(np.int64).clip(0, shape - 1)
    return start, np.maximum(np.rint(high).astype(np.int64).clip(0, shape), start + 1)
