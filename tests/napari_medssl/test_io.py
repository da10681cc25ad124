"""Through napari and back: files keep their geometry, measured by SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medssl.io import read_volume, write_volume
from medssl.volume import Geometry, Volume

pytest.importorskip("napari")

from napari.layers import Image, Labels

from napari_medssl._reader import get_reader, read
from napari_medssl._writer import write_layer

SUFFIXES = (".nii.gz", ".nrrd", ".mha")


def layer_of(layer_tuple: tuple) -> Image | Labels:
    data, options, kind = layer_tuple
    return {"image": Image, "labels": Labels}[kind](data, **options)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_mask_painted_on_a_scan_is_written_in_its_geometry(
    geometry: Geometry, suffix: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    import SimpleITK as sitk

    scan = tmp_path / f"scan{suffix}"
    write_volume(Volume(rng.integers(0, 900, (1, *geometry.shape)).astype(np.int16), geometry), scan)
    reader = get_reader(str(scan))
    assert reader is not None
    image = layer_of(reader(str(scan))[0])
    labels = Labels(
        rng.integers(0, 4, geometry.shape).astype(np.uint8),
        **{name: getattr(image, name) for name in ("scale", "translate", "affine", "units", "axis_labels")},
        metadata=image.metadata,
    )
    target = str(tmp_path / f"mask{suffix}")
    assert write_layer(target, labels.data, labels.as_layer_data_tuple()[1]) == [target]
    source, mask = sitk.ReadImage(str(scan)), sitk.ReadImage(target)
    np.testing.assert_allclose(mask.GetSpacing(), source.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(mask.GetOrigin(), source.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(mask.GetDirection(), source.GetDirection(), atol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), labels.data)


def test_an_image_layer_keeps_its_values(
    geometry: Geometry, tmp_path: Path, rng: np.random.Generator
) -> None:
    volume = Volume(rng.integers(-900, 900, (1, *geometry.shape)).astype(np.int16), geometry)
    write_volume(volume, tmp_path / "scan.nrrd")
    image = layer_of(read(str(tmp_path / "scan.nrrd"))[0])
    data, attributes, _ = image.as_layer_data_tuple()
    write_layer(str(tmp_path / "copy.nii.gz"), data, attributes)
    back = read_volume(tmp_path / "copy.nii.gz")
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.geometry.matches(geometry, tolerance=1e-2)


def test_a_foreign_mask_is_written_by_its_transform(tmp_path: Path) -> None:
    layer = Labels(
        np.ones((4, 5, 6), np.uint8), scale=(2, 1, 1), translate=(7, 8, 9), units=("mm",) * 3, name="theirs"
    )
    data, attributes, _ = layer.as_layer_data_tuple()
    write_layer(str(tmp_path / "mask.nii.gz"), data, attributes)
    grid = read_volume(tmp_path / "mask.nii.gz").geometry
    np.testing.assert_allclose(grid.spacing, (2, 1, 1))
    np.testing.assert_allclose(grid.origin, (7, 8, 9))


def test_the_reader_chooses_by_content(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    assert get_reader(str(tmp_path / "notes.txt")) is None
    assert get_reader(str(tmp_path)) is None  # a folder without DICOM
    assert get_reader(str(tmp_path / "a.nii.gz")) is not None
    folder = tmp_path / "series" / "inner"
    folder.mkdir(parents=True)
    (folder / "IM0").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)
    assert get_reader(str(tmp_path / "series")) is not None
    assert get_reader([str(folder / "IM0")]) is not None
    assert get_reader([str(folder / "IM0"), str(tmp_path / "notes.txt")]) is None


def test_masks_open_as_labels_and_scans_as_images(tmp_path: Path) -> None:
    grid = Geometry.from_arrays((4, 5, 6))
    mask = Volume((np.arange(120).reshape(1, 4, 5, 6) % 3).astype(np.uint8), grid)
    for name, kind in (("case_label.nii.gz", "labels"), ("case.nii.gz", "image")):
        write_volume(mask, tmp_path / name)
        assert read(str(tmp_path / name))[0][2] == kind


def test_ct_opens_with_the_soft_tissue_window(volume: Volume, tmp_path: Path) -> None:
    write_volume(volume, tmp_path / "ct.nii.gz")
    _, options, _ = read(str(tmp_path / "ct.nii.gz"))[0]
    assert options["contrast_limits"] == (-160, 240)
    assert options["metadata"]["path"] == str(tmp_path / "ct.nii.gz")


def test_sample_data() -> None:
    from napari_medssl._sample_data import average_brain, ct_phantom

    image, organs, lesions = ct_phantom()
    assert "phantom" in image[1]["name"]
    assert image[0].min() < -900  # Hounsfield units of air
    assert organs[2] == lesions[2] == "labels"
    assert organs[0].shape == image[0].shape
    pytest.importorskip("nilearn")
    brain = layer_of(average_brain()[0])
    assert "average brain" in brain.name
    assert brain.data.shape == (189, 233, 197)
    assert str(brain.units[0]) == "millimeter"
