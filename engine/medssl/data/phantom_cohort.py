"""Generated CT phantoms on disk with a data table: to train and judge a detector without a patient."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from medssl.data.phantom import ct_phantom
from medssl.io import write_volume
from medssl.io.tables import write_boxes


def write_phantoms(folder: Path, splits: Iterable[tuple[str, Iterable[int], int]]) -> Path:
    """Write phantoms and the boxes of their lesions.

    Args:
        folder: made where it is absent; gets ``ct-phantom-<seed>.nii.gz``, the boxes beside it as
            ``.csv``, and ``data.csv``.
        splits: name of the split, seeds of its phantoms, lesions in each of them.

    Returns:
        The data table, for ``--data``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "data.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "boxes", "split", "modality"])
        for split, seeds, lesions in splits:
            for seed in seeds:
                phantom = ct_phantom(seed=seed, lesions=lesions)
                name = f"ct-phantom-{seed}"
                write_volume(phantom.volume, folder / f"{name}.nii.gz")
                write_boxes(phantom.boxes, folder / f"{name}.csv")
                writer.writerow([f"{name}.nii.gz", f"{name}.csv", split, phantom.volume.modality])
    return table
