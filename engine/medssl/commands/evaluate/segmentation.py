"""Segmentation as the fine-tuned protocols see it: dense masks, mean Dice on held-out subjects."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medssl.commands.evaluate.assay import Perturb
from medssl.commands.evaluate.table_assay import TableAssay
from medssl.config.evaluate import EvaluateConfig
from medssl.config.segmentation import SegmentationConfig
from medssl.data.labelled import LabelledVolume, class_values, known_values, read_labelled, to_working_grid
from medssl.data.patches import PatchLoader
from medssl.data.table import Row, read_data
from medssl.errors import InputError
from medssl.evaluation.metrics import dice_scores, mean_dice
from medssl.inference.segment import WINDOW, window_size
from medssl.inference.window import sliding_window
from medssl.jobs.progress import drain
from medssl.nets.encoders import AnyEncoder
from medssl.nets.segmentation import SegmentationNetwork
from medssl.store.project import content_hash
from medssl.tasks.segmentation import SegmentationTask

_CROP = {2: 128, 3: 64}


class SegmentationAssay(TableAssay):
    """See `medssl.commands.evaluate.assay.Assay`.

    Scans and masks are brought to the working grid of the encoders, and Dice is taken there: over the
    foreground classes of a scan, then over the scans of a subject, then over the subjects.

    Args:
        config: settings.
        table: data table (CSV) with the columns image and label.
        spacing_range: of the encoders, mm.
        dims: what the encoders take; None takes what the table has.
        scratch: folder for arrays on disk.

    Raises:
        InputError: fewer than two subjects to train on, nobody held out, mixed dimensions, a held-out
            class that no training subject has, or held-out masks without any.
    """

    metric = "dice"
    look_subjects = 6

    def __init__(
        self,
        config: EvaluateConfig,
        table: Path,
        spacing_range: tuple[float, float],
        dims: int | None,
        scratch: Path,
    ) -> None:
        rows = [row for row in read_data(table) if row.label is not None]
        if not rows:
            raise InputError(f"{table}: no row has a label; segmentation needs the column label")
        super().__init__(config, table, rows, "segmentation")
        self.notes = (*self.notes, "on the working grid of the encoders")
        # of what was read, not of what was resampled: that may differ in the last bit between machines
        digest = hashlib.sha256(repr(spacing_range).encode())
        volumes = [_read(row, spacing_range, scratch, digest) for row in self._rows]
        self.spatial_dims = self._same_dims(((own.row, own.grid.ndim) for own in volumes), dims)
        count = len(self._train_rows)
        self._train, self._held = volumes[:count], volumes[count:]
        self.values = class_values(volume.label for volume in self._train)
        unseen = set(class_values(volume.label for volume in self._held)) - set(self.values)
        if unseen or len(self.values) < 2:
            what = (
                f"class {min(unseen)} is in no training subject" if unseen else "only one class is labelled"
            )
            raise InputError(f"{table}: {what}; label it in one, or leave the table out")
        for judged in self._judged_groups():
            masks = [volume.label for volume in self._held if volume.row.subject in judged]
            if not set(class_values(masks)) - {0}:
                raise InputError(
                    f"{table}: no held-out mask that is judged holds a class beside the background; "
                    "judge more subjects (--test-subjects, --look-subjects), or move one to split val"
                )
        self.digest = digest.hexdigest()

    def task(self, encoder: nn.Module, *, seed: int, is_pretrained: bool) -> SegmentationTask:
        """Encoder, pyramid decoder, classifier; Dice and cross-entropy."""
        torch.manual_seed(seed)
        return SegmentationTask(
            SegmentationNetwork(cast("AnyEncoder", encoder), len(self.values)),
            SegmentationConfig(),
            frozen_steps=self._frozen_steps(is_pretrained),
            freeze_statistics=is_pretrained and self._config.mode == "frozen",
        )

    def batches(self, fraction: float, seed: int) -> tuple[PatchLoader, int]:
        """Foreground-balanced patches of a share of the subjects."""
        kept = self._share(fraction, seed)
        volumes = [volume for volume in self._train if id(volume.row) in kept]
        edge = self._config.crop or _CROP[self.spatial_dims]
        longest = [max(v.grid.shape[axis] for v in self._train) for axis in range(self.spatial_dims)]
        crop = tuple(-(-min(edge, n) // self.multiple) * self.multiple for n in longest)
        loader = PatchLoader(volumes, self.values, crop, self._config.batch_size, seed=seed)
        return loader, len({volume.row.subject for volume in volumes})

    def score(
        self, task: nn.Module, subjects: int | None = None, perturb: Perturb | None = None
    ) -> tuple[float, Mapping[str, Any]]:
        """Mean Dice over subjects, and the Dice of each."""
        network = cast("SegmentationTask", task).network
        device = next(network.parameters()).device
        wanted = self._held_subjects_of(subjects)
        scores: dict[str, list[float]] = defaultdict(list)
        was_training = task.training
        task.eval()
        for volume in self._held:
            if volume.row.subject not in wanted:
                continue
            image = torch.from_numpy(volume.image.astype(np.float32))[None]
            label = torch.from_numpy(volume.label.astype(np.int64))[None, None]
            if perturb is not None:
                image, moved = perturb(image, label, volume.row.name)
                label = label if moved is None else moved
            size = window_size(volume.grid.shape, network.multiple, WINDOW[self.spatial_dims])
            logits = drain(sliding_window(image[0].numpy(), network, size, device=device))
            found = np.asarray(self.values)[logits.argmax(dim=0).numpy()]
            truth: NDArray[np.int64] = label[0, 0].numpy()
            dice = mean_dice(dice_scores(found, truth, self.values, truth >= 0), background=0)
            if np.isfinite(dice):
                scores[volume.row.subject].append(dice)
        task.train(was_training)
        if not scores:
            raise InputError(
                f"{self.name}: no held-out mask that is judged holds a class any more; take fewer --families"
            )
        means = {subject: float(np.mean(values)) for subject, values in scores.items()}
        return float(np.mean(list(means.values()))), means


def _read(
    row: Row, spacing_range: tuple[float, float], scratch: Path, digest: hashlib._Hash
) -> LabelledVolume:
    volume, mask = read_labelled(row)
    digest.update((content_hash(volume) + volume.modality).encode())
    digest.update(np.ascontiguousarray(mask).data)
    return to_working_grid(row, volume, known_values(mask, "dense"), spacing_range, scratch)
