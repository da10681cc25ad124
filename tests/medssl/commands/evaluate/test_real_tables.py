"""The tables of real scans as the fine-tuned protocols read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medssl.commands.evaluate.assay import read_assay
from medssl.config.evaluate import EvaluateConfig

pytestmark = [pytest.mark.data, pytest.mark.slow]


@pytest.mark.parametrize(
    ("table", "dims", "subjects", "classes"),
    [
        ("segmentation_hippocampus", 3, (136, 34), (0, 1, 2)),
        ("segmentation_left_ventricle_2d", 2, (24, 6), (0, 1)),
        ("classification_mednist_2d", 2, (358, 90), ("AbdomenCT", "ChestCT", "HeadCT")),
    ],
)
def test_subjects_are_nested_and_held_out_ones_apart(
    tmp_path: Path, table: str, dims: int, subjects: tuple[int, int], classes: tuple[object, ...]
) -> None:
    path = Path(os.environ["MEDSSL_DATA"]) / "tables" / f"{table}.csv"
    config = EvaluateConfig(
        protocol="label-fraction",
        data=(path,),
        encoder=("none",),
        out=tmp_path / "out",
        task=table.partition("_")[0],
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assay = read_assay(config, path, (0.5, 1.25), None, scratch)
    assert (assay.spatial_dims, assay.subjects, assay.held_subjects) == (dims, *subjects)
    assert tuple(getattr(assay, "values", getattr(assay, "names", ()))) == classes
    counts = [assay.batches(share, seed=0)[1] for share in config.fractions]
    assert counts == [-(-subjects[0] * percent // 100) for percent in (5, 10, 25, 50, 100)]
    batch = next(assay.batches(0.05, seed=0)[0].batches())
    assert batch.image.shape[:2] == (config.batch_size, 1)
    assert batch.image.ndim == dims + 2
    assert 0.02 < float(batch.image.mean()) < 0.9
