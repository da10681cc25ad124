"""Reading a DICOM series against SimpleITK's own series reader."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import SimpleITK as sitk

import medssl

pytestmark = [pytest.mark.benchmark, pytest.mark.data]


def test_reading_a_series(figures, seconds) -> None:
    folder = Path(os.environ["MEDSSL_DATA"]) / "dicom_raw" / "STS_042_CT"

    def reference() -> None:
        reader = sitk.ImageSeriesReader()
        [series] = reader.GetGDCMSeriesIDs(str(folder))
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
        sitk.GetArrayFromImage(reader.Execute())

    ours, theirs = seconds(lambda: medssl.read_volume(folder), reference, runs=9)
    slices = len(list(folder.iterdir()))
    how = f"SimpleITK, {slices} files: {theirs:.2f} s"
    figures.at_most("reading a DICOM series", ours / theirs, 1.3, "x", reference=how, runs=9)
