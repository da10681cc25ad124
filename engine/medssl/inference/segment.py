"""Volume + weights of a segmentation network -> a class per voxel, in the volume's own geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy import ndimage
from torch import Tensor

from medssl.errors import InputError
from medssl.inference.window import sliding_window
from medssl.jobs.progress import Steps
from medssl.nets.encoders import restore_encoder
from medssl.nets.segmentation import SegmentationNetwork
from medssl.store.weights import WeightsRecord
from medssl.volume import Geometry, Volume
from medssl.volume.normalize import Normalizer
from medssl.volume.resample import interpolate, interpolation_matrices
from medssl.volume.working_grid import SPACING_RANGE, working_geometry

WINDOW = {2: 512, 3: 128}
"""Edge of the sliding window in voxels, by dimensions; larger than the training patch: fewer borders, and a
network that begins at a linear probe was given features of whole scans, which windows of 96 voxels miss."""

_SLAB = 8_000_000  # probabilities brought to the source grid at once


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A segmentation network in evaluation mode, and what its channels stand for.

    Args:
        network: logits of the classes.
        values: mask value of each channel.
        spacing_range: of the working grid, mm.
        name: how the user called the weights.
    """

    network: SegmentationNetwork
    values: tuple[int, ...]
    spacing_range: tuple[float, float] = SPACING_RANGE
    name: str = ""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.network.parameters()).device

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return self.network.encoder.spatial_dims


def task_of(record: WeightsRecord) -> Mapping[str, Any]:
    """What the header says about the task.

    Raises:
        InputError: the weights are an encoder without a task.
    """
    task = record.metadata.get("task")
    if not isinstance(task, dict) or "kind" not in task or "classes" not in task:
        raise InputError(
            f"{record.name}: an encoder without a task; fine-tune it first (medssl finetune segmentation "
            f"--init {record.name} ...)"
        )
    return task


def load_segmenter(record: WeightsRecord, device: str | torch.device = "cpu") -> Segmenter:
    """A segmentation network from the file that `medssl finetune` exports.

    Raises:
        InputError: other weights, or header and tensors do not fit.
    """
    task = task_of(record)
    if task["kind"] != "network":
        raise InputError(f"{record.name}: holds a {task['kind']}, not a network")
    tensors = load_file(record.path)
    try:
        network = SegmentationNetwork(restore_encoder(record.metadata["encoder"]), **task["network"])
        result = network.load_state_dict({k: v for k, v in tensors.items() if _belongs(k)}, strict=False)
        missing = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        values = tuple(int(entry["value"]) for entry in task["classes"])
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{record.path}: header and tensors do not fit ({reason}); export again") from error
    low, high = record.metadata["preprocessing"].get("spacing_range", SPACING_RANGE)
    network.eval().requires_grad_(False).to(device)
    return Segmenter(network, values, (float(low), float(high)), record.name)


def segment_steps(
    volume: Volume,
    segmenter: Segmenter,
    *,
    overlap: float = 0.25,
    window: int | None = None,
    wanted: NDArray[np.bool_] | None = None,
) -> Steps[Volume]:
    """Segment a volume: working grid, windows, probabilities to the source grid, the most likely class.

    Args:
        volume: (C, *S) scan; several channels are averaged.
        segmenter: from `load_segmenter`; its device does the work.
        overlap: of the windows, in [0, 1).
        window: edge of the windows, voxels of the working grid.
        wanted: (*S) voxels of the scan that matter; far from them the mask may be wrong.

    Returns:
        (1, *S) mask in the geometry of ``volume``.

    Raises:
        InputError: the volume has other dimensions than the network.
    """
    if volume.spatial_dims != segmenter.spatial_dims:
        raise InputError(
            f"{volume.id or 'the image'} has {volume.spatial_dims} dimensions and the model "
            f"{segmenter.name!r} is for {segmenter.spatial_dims}; choose another model"
        )
    image, grid = working_image(volume, segmenter.spacing_range)
    size = window_size(grid.shape, segmenter.network.multiple, window or WINDOW[volume.spatial_dims])
    logits = yield from sliding_window(
        image,
        segmenter.network,
        size,
        overlap=overlap,
        device=segmenter.device,
        wanted=None if wanted is None else _wanted_cells(wanted, volume.geometry, grid),
        phase="segmenting",
    )
    mask = to_labels(logits, grid, volume.geometry, segmenter.values)
    return volume.with_array(mask[None], modality="", notes=())


def working_image(volume: Volume, spacing_range: tuple[float, float]) -> tuple[NDArray[np.float32], Geometry]:
    """The normalised image (1, *S') on the working grid, and that grid."""
    array = volume.array if len(volume.array) == 1 else volume.array.mean(axis=0, keepdims=True)
    normalizer = Normalizer.fit(array, volume.modality)
    grid = working_geometry(volume.geometry, spacing_range)
    if grid is not volume.geometry:
        array = interpolate(array, interpolation_matrices(volume.geometry, grid))
    return normalizer(array), grid


def window_size(shape: Sequence[int], multiple: Sequence[int], edge: int) -> tuple[int, ...]:
    """Voxels per axis of a window: at most ``edge``, no longer than needed, a multiple of the stride."""
    return tuple(-(-min(n, edge) // m) * m for n, m in zip(shape, multiple, strict=True))


def to_labels(
    logits: Tensor, grid: Geometry, target: Geometry, values: Sequence[int]
) -> NDArray[np.unsignedinteger]:
    """Class probabilities interpolated to another grid, then the most likely class.

    Slab by slab along the first axis, so that the probabilities never exist at full size twice.

    Args:
        logits: (K, *S) on ``grid``; overwritten.
        grid: working grid.
        target: grid of the result, along the same directions.
        values: mask value of each class.

    Returns:
        (*target.shape) mask.
    """
    names = np.asarray(values, np.uint8 if max(values) < 256 else np.uint16)
    if grid is target:
        best: NDArray[np.unsignedinteger] = names[logits.argmax(dim=0).numpy()]  # softmax is monotone
        return best
    for plane in range(logits.shape[1]):
        logits[:, plane] = logits[:, plane].softmax(dim=0)
    probabilities = logits.numpy()
    matrices = interpolation_matrices(grid, target)
    mask = np.empty(target.shape, names.dtype)
    thick = max(1, _SLAB // (len(names) * int(np.prod(target.shape[1:]))))
    for low in range(0, target.shape[0], thick):
        rows = slice(low, low + thick)
        mask[rows] = names[interpolate(probabilities, (matrices[0][rows], *matrices[1:])).argmax(0)]
    return mask


def _wanted_cells(wanted: NDArray[np.bool_], native: Geometry, grid: Geometry) -> NDArray[np.bool_]:
    """Cells of the working grid that the wanted voxels are interpolated from."""
    if grid is native:
        return wanted
    share = interpolate(wanted[None], interpolation_matrices(native, grid))[0]
    cells: NDArray[np.bool_] = ndimage.binary_dilation(share > 0, iterations=1)
    return cells


def _belongs(key: str) -> bool:
    return key.startswith(("backbone.", "segmentation.", "linear."))
