"""Classification as the fine-tuned protocols see it: whole images, mean AUC on held-out subjects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from medssl.commands.evaluate.assay import Perturb
from medssl.commands.evaluate.table_assay import TableAssay
from medssl.config.classification import ClassificationConfig
from medssl.config.evaluate import EvaluateConfig
from medssl.data.classified import ClassifiedImage, ClassLoader, class_names, targets, to_classified
from medssl.data.held_out import wanted_tasks
from medssl.data.scan import read_scan
from medssl.data.table import read_data
from medssl.errors import InputError
from medssl.evaluation.classification_metrics import auc, macro_auc
from medssl.nets.classification import ClassificationNetwork
from medssl.nets.encoders import AnyEncoder
from medssl.store.project import content_hash
from medssl.tasks.classification import ClassificationTask

_AT_ONCE = {2: 32, 3: 2}
"""Images per forward pass while judging, by dimensions."""


class ClassificationAssay(TableAssay):
    """See `medssl.commands.evaluate.assay.Assay`; the score is the AUC, averaged over the classes.

    Args:
        config: settings; ``crop`` is the longest edge of an image.
        table: data table (CSV) with the columns image and class.
        spacing_range: of the encoders, mm.
        dims: what the encoders take; None takes what the table has.
        scratch: folder for arrays on disk.

    Raises:
        InputError: too few subjects or classes, mixed dimensions, a held-out class that no training
            subject has, or held-out images of one kind.
    """

    metric = "auc"
    look_subjects = None

    def __init__(
        self,
        config: EvaluateConfig,
        table: Path,
        spacing_range: tuple[float, float],
        dims: int | None,
        scratch: Path,
    ) -> None:
        everyone = read_data(table)
        rows = [row for row in everyone if row.classes]
        if not rows:
            raise InputError(f"{table}: no row has a class; classification needs the column class")
        tasks = wanted_tasks(rows, config.tasks)
        of_task = [row for row in everyone if row.task in tasks and row.split in ("", "train", "val")]
        rows = [row for row in of_task if row.classes]
        self.multi_label = any(len(row.classes) > 1 for row in rows)
        if self.multi_label:
            rows = of_task  # whoever has no class is a negative of each
        super().__init__(config, table, rows, "classification")
        if len(rows) < len(of_task):
            self.notes = (*self.notes, f"{len(of_task) - len(rows)} rows without a class left out")
        self.names = class_names(self._train_rows)
        unseen = {name for row in self._held_rows for name in row.classes} - set(self.names)
        if unseen or len(self.names) < 2:
            what = f"class {min(unseen)} is in no training subject" if unseen else "there is only one class"
            raise InputError(f"{table}: {what}; add images of another, or leave the table out")
        known = targets(self._rows, self.names, self.multi_label)
        # of what was read, not of what was resampled: that may differ in the last bit between machines
        digest = hashlib.sha256(repr((spacing_range, config.crop, self.names)).encode())
        images = []
        for row, target in zip(self._rows, known, strict=True):
            volume = read_scan(row)
            digest.update((content_hash(volume) + volume.modality).encode() + target.tobytes())
            images.append(
                to_classified(
                    row, volume, target, spacing_range=spacing_range, size=config.crop, scratch=scratch
                )
            )
        self.digest = digest.hexdigest()
        self.spatial_dims = self._same_dims(((own.row, own.image.ndim - 1) for own in images), dims)
        count = len(self._train_rows)
        self._train, self._held = images[:count], images[count:]
        for judged in self._judged_groups():
            chosen = np.stack([image.target for image in self._of(judged)])
            if not np.isfinite(macro_auc(chosen.astype(np.float32), chosen)):
                raise InputError(
                    f"{table}: the {len(chosen)} held-out images that are judged are of one kind; judge more "
                    "subjects (--test-subjects, --look-subjects), or move one of another to split val"
                )
        longest = [max(own.image.shape[1 + axis] for own in images) for axis in range(self.spatial_dims)]
        self._shape = tuple(-(-n // self.multiple) * self.multiple for n in longest)  # networks pad the rest

    def task(self, encoder: nn.Module, *, seed: int, is_pretrained: bool) -> ClassificationTask:
        """Encoder, pooled features, one linear map; cross-entropy."""
        torch.manual_seed(seed)
        return ClassificationTask(
            ClassificationNetwork(cast("AnyEncoder", encoder), len(self.names)),
            ClassificationConfig(),
            multi_label=self.multi_label,
            frozen_steps=self._frozen_steps(is_pretrained),
            freeze_statistics=is_pretrained and self._config.mode == "frozen",
        )

    def _of(self, subjects: set[str]) -> list[ClassifiedImage]:
        """Held-out images of these subjects."""
        return [image for image in self._held if image.row.subject in subjects]

    def batches(self, fraction: float, seed: int) -> tuple[ClassLoader, int]:
        """Images of a share of the subjects, each once per epoch."""
        kept = self._share(fraction, seed)
        images = [image for image in self._train if id(image.row) in kept]
        loader = ClassLoader(images, self._shape, self._config.batch_size, seed=seed)
        return loader, len({image.row.subject for image in images})

    def score(
        self, task: nn.Module, subjects: int | None = None, perturb: Perturb | None = None
    ) -> tuple[float, Mapping[str, Any]]:
        """AUC averaged over the classes of which held-out images of both kinds exist, and that of each."""
        held = self._of(self._held_subjects_of(subjects))
        loader = ClassLoader(held, self._shape, 1)
        device = next(task.parameters()).device
        was_training = task.training
        task.eval()
        parts = []
        for low in range(0, len(held), _AT_ONCE[self.spatial_dims]):
            numbers = range(low, min(low + _AT_ONCE[self.spatial_dims], len(held)))
            image = loader.pick(numbers).image
            if perturb is not None:
                changed = [
                    perturb(image[i : i + 1], None, held[n].row.name)[0] for i, n in enumerate(numbers)
                ]
                image = torch.cat(changed)
            parts.append(cast("ClassificationTask", task).predict(image.to(device)).float().cpu().numpy())
        task.train(was_training)
        found = np.concatenate(parts)
        known = np.stack([image.target for image in held])
        score = macro_auc(found, known)
        single = {name: auc(found[:, k], known[:, k]) for k, name in enumerate(self.names)}
        return score, {name: value for name, value in single.items() if np.isfinite(value)}
