"""Labelled scans cut to what matters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medssl.data.table import Row
from medssl.errors import InputError
from medssl.evaluation.cohort import Cohort, read_case, read_cohort


def write_case(folder: Path, name: str, label: np.ndarray) -> None:
    for kind, array in (
        ("image", np.arange(label.size, dtype=np.float32).reshape(label.shape)),
        ("label", label),
    ):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.0, 2.0, 4.0)[: label.ndim])
        sitk.WriteImage(image, str(folder / f"{name}-{kind}.nii.gz"))


def row(folder: Path, name: str) -> Row:
    return Row(folder / f"{name}-image.nii.gz", folder / f"{name}-label.nii.gz", subject=name, name=name)


def test_cut_keeps_margin_in_millimetres_and_place(tmp_path: Path) -> None:
    label = np.zeros((20, 30, 40), np.uint8)
    label[10, 15, 20] = 3
    write_case(tmp_path, "a", label)
    case = read_case(row(tmp_path, "a"), margin_mm=8, max_voxels=10**6)
    assert case.label.shape == (5, 9, 17)  # 8 mm are 2, 4 and 8 voxels on each side
    assert case.label[2, 4, 8] == 3
    assert case.volume.array[0, 2, 4, 8] == np.ravel_multi_index((10, 15, 20), label.shape)
    assert np.allclose(case.volume.geometry.origin, (8 * 4.0, 11 * 2.0, 12 * 1.0))


def test_cut_that_is_too_large_shrinks_around_the_label(tmp_path: Path) -> None:
    label = np.zeros((20, 30, 40), np.uint8)
    label[2:18, 3:27, 4:36] = 1
    write_case(tmp_path, "a", label)
    case = read_case(row(tmp_path, "a"), margin_mm=100, max_voxels=3000)
    assert 2000 < case.label.size <= 3000
    assert case.label.min() == 1


def test_first_task_of_a_table_is_used(tmp_path: Path) -> None:
    for name in ("a", "b"):
        label = np.zeros((4, 5, 6), np.uint8)
        label[2, 2, 2:] = 2 if name == "a" else 5
        write_case(tmp_path, name, label)
    table = tmp_path / "segmentation_x.csv"
    lines = [f"{n}-image.nii.gz,{n}-label.nii.gz,{n},{task},val" for n in "ab" for task in ("t1", "t2")]
    table.write_text("\n".join(["image,label,subject,task,split", *lines]))
    cohort = read_cohort(table, margin_mm=0, max_voxels=10**6, subjects=2)
    assert cohort.name == "x"
    assert cohort.classes == (2, 5)
    assert [case.subject for case in cohort.cases] == ["a", "b"]
    assert cohort.notes == ("task t1; not used: t2",)


@pytest.mark.parametrize("count", [2, 6, 34])
def test_seeds_in_a_row_take_different_subjects(count: int) -> None:
    cohort = Cohort("x", tuple(range(count)), (1,), "")  # type: ignore[arg-type]
    assert len({cohort.pick(seed) for seed in range(count)}) == count
    assert [cohort.pick(seed) for seed in range(5)] == [cohort.pick(seed + count) for seed in range(5)]


@pytest.mark.parametrize(
    ("value", "words"), [(1000, "classes are numbered 0 to 255"), (0.5, "holds fractions")]
)
def test_a_mask_that_is_none_is_refused(tmp_path: Path, value: float, words: str) -> None:
    label = np.zeros((8, 8, 8), np.float32)
    label[2:5, 2:5, 2:5] = value
    write_case(tmp_path, "a", label)
    with pytest.raises(InputError, match=words):
        read_case(row(tmp_path, "a"), margin_mm=8, max_voxels=10**6)
