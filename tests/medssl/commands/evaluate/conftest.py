from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk


@pytest.fixture(scope="session")
def write_balls() -> Callable[..., Path]:
    """Makes a table of noisy images with a bright ball whose place differs by subject."""

    def write(folder: Path, train: int = 4, val: int = 2, spatial_dims: int = 3) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        rows = ["image,label,class,subject,modality,task,split"]
        for number in range(train + val):
            rng = np.random.default_rng(number)
            shape = (20, 28, 24)[:spatial_dims]
            centre = np.array([9, 13, 11][:spatial_dims]) + rng.integers(-2, 3, spatial_dims)
            distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - centre, axis=-1)
            label = (distance < 7).astype(np.uint8)
            image = (300 + 400.0 * label + rng.normal(0, 20, shape)).astype(np.float32)
            for name, array in (("image", image), ("label", label)):
                written = sitk.GetImageFromArray(array)
                written.SetSpacing((0.5,) * spatial_dims)
                sitk.WriteImage(written, str(folder / f"{name}{number}.nii.gz"))
            split, kind = "train" if number < train else "val", "ab"[number % 2]
            rows.append(f"image{number}.nii.gz,label{number}.nii.gz,{kind},s{number},MR,balls,{split}")
        table = folder / "balls.csv"
        table.write_text("\n".join(rows) + "\n")
        return table

    return write
