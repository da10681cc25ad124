"""Volume + weights of a classifier -> probabilities of the classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from medssl.config.classification import ClassificationConfig
from medssl.data.classified import centred, fit_image
from medssl.errors import InputError
from medssl.inference.segment import task_of
from medssl.nets.classification import ClassificationNetwork
from medssl.nets.encoders import restore_encoder
from medssl.store.weights import WeightsRecord
from medssl.volume import Volume
from medssl.volume.working_grid import SPACING_RANGE


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classification network in evaluation mode, and what its outputs stand for.

    Args:
        network: logits of the classes.
        names: class of each output.
        multi_label: whether several classes may be true at once.
        shape: voxels per axis of the input.
        size: longest edge that an image is shrunk to.
        spacing_range: of the working grid, mm.
        name: how the user called the weights.
    """

    network: ClassificationNetwork
    names: tuple[str, ...]
    multi_label: bool
    shape: tuple[int, ...]
    size: int | None
    spacing_range: tuple[float, float] = SPACING_RANGE
    name: str = ""


def load_classifier(record: WeightsRecord, device: str | torch.device = "cpu") -> Classifier:
    """A classifier from the file that `medssl finetune classification` exports.

    Raises:
        InputError: other weights, or header and tensors do not fit.
    """
    task = task_of(record)
    if task.get("name") != "classification":
        raise InputError(f"{record.name}: made for {task.get('name')}, not for classification")
    tensors = load_file(record.path)
    try:
        network = ClassificationNetwork(
            restore_encoder(record.metadata["encoder"]), int(task["network"]["classes"])
        )
        own = {k: v for k, v in tensors.items() if k.startswith(("backbone.", "classification."))}
        result = network.load_state_dict(own, strict=False)
        missing = [
            key for key in result.missing_keys if not key.startswith("dense.") and "num_batches" not in key
        ]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        names = tuple(str(entry["name"]) for entry in task["classes"])
        settings = ClassificationConfig.model_validate(task["settings"])
        shape = tuple(int(size) for size in task["shape"])
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{record.path}: header and tensors do not fit ({reason}); export again") from error
    low, high = record.metadata["preprocessing"].get("spacing_range", SPACING_RANGE)
    network.eval().requires_grad_(False).to(device)
    is_multi = bool(settings.multi_label)
    return Classifier(network, names, is_multi, shape, settings.size, (float(low), float(high)), record.name)


def classify(volume: Volume, classifier: Classifier) -> dict[str, float]:
    """Probability of every class, by name, the most likely first.

    Args:
        volume: (C, *S) image; several channels are averaged.
        classifier: from `load_classifier`; its device does the work.

    Raises:
        InputError: the volume has other dimensions than the network.
    """
    n = classifier.network.encoder.spatial_dims
    if volume.spatial_dims != n:
        raise InputError(
            f"{volume.id or 'the image'} has {volume.spatial_dims} dimensions and the model "
            f"{classifier.name!r} is for {n}; choose another model"
        )
    image, _ = fit_image(volume, classifier.spacing_range, classifier.size)
    # The canvas of the training images, larger where this one is: nothing is cut off.
    canvas = tuple(map(max, image.shape[1:], classifier.shape))
    x = torch.from_numpy(centred(image, canvas))[None]
    with torch.no_grad():
        logits = classifier.network(x.to(next(classifier.network.parameters()).device))[0].float().cpu()
    values: NDArray[np.float32] = (logits.sigmoid() if classifier.multi_label else logits.softmax(0)).numpy()
    order = np.argsort(-values, kind="stable")
    return {classifier.names[index]: round(float(values[index]), 6) for index in order}
