"""A layer shows a volume where it lies, and gives it back exactly."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.volume import Geometry, Volume
from napari_medssl import layers

napari_layers = pytest.importorskip("napari.layers")


def make(geometry: Geometry) -> Volume:
    array = np.arange(np.prod(geometry.shape), dtype=np.int16).reshape(1, *geometry.shape)
    return Volume(array, geometry, modality="MR", id="case", notes=("a note",))


def build(layer: tuple) -> object:
    data, options, kind = layer
    return {"image": napari_layers.Image, "labels": napari_layers.Labels}[kind](data, **options)


def test_image_round_trip_is_exact_for_every_direction(geometry: Geometry) -> None:
    volume = make(geometry)
    back = layers.volume_of(build(layers.image_layer(volume)))
    assert back.geometry == geometry
    assert back.array is not None
    np.testing.assert_array_equal(back.array, volume.array)
    assert (back.modality, back.id, back.notes) == ("MR", "case", ("a note",))


def test_layers_carry_scale_units_and_axis_labels(geometry: Geometry) -> None:
    layer = build(layers.image_layer(make(geometry)))
    np.testing.assert_allclose(layer.scale, geometry.spacing)
    assert {str(unit) for unit in layer.units} == {"millimeter"}
    assert tuple(layer.axis_labels) == ("z", "y", "x")


def test_the_world_of_a_layer_is_the_world_of_the_volume(geometry: Geometry) -> None:
    layer = build(layers.image_layer(make(geometry)))
    index = np.array([2.0, 5.0, 3.0])
    if layers.shows_world(geometry):
        np.testing.assert_allclose(layer.data_to_world(index), geometry.to_world(index), atol=1e-5)
    else:
        # napari cannot slice this grid: it is shown in its own frame, a pure rotation of the world
        shown = np.asarray(geometry.direction) @ np.asarray(layer.data_to_world(index))
        np.testing.assert_allclose(shown, geometry.to_world(index), atol=1e-5)
    displayed = layers.displayed_position(geometry, index)
    np.testing.assert_allclose(displayed, layer.data_to_world(index), atol=1e-5)


def test_a_click_reaches_the_voxel_that_is_shown(geometry: Geometry) -> None:
    from napari.components import ViewerModel

    viewer = ViewerModel()
    data, options, _ = layers.labels_layer(make(geometry), "mask", "labels")
    layer = viewer.add_labels(data, **options)
    voxel = np.array([4, 3, 6])
    position = layers.displayed_position(geometry, voxel)
    viewer.dims.point = tuple(position)
    shown = layer.data[4]  # the slice napari has to display
    np.testing.assert_array_equal(np.asarray(layer.get_value(tuple(position), world=True)), shown[3, 6])
    np.testing.assert_allclose(layer.world_to_data(position), voxel, atol=1e-4)


def test_a_moved_layer_is_understood_by_its_transform(volume: Volume) -> None:
    layer = build(layers.image_layer(volume))
    layer.translate = np.add(layer.translate, (10.0, 0.0, -4.0))
    origin = layers.volume_of(layer).geometry.origin
    np.testing.assert_allclose(np.subtract(origin, volume.geometry.origin), (10.0, 0.0, -4.0))


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")  # said by napari, for oblique affines
def test_a_foreign_layer_becomes_a_volume_through_its_affine(geometry: Geometry) -> None:
    data = np.zeros(geometry.shape)
    layer = napari_layers.Image(data, affine=geometry.affine, units=("mm",) * 3, name="theirs")
    before = np.array(layer.affine)
    found = layers.volume_of(layer)
    assert found.geometry.matches(geometry, tolerance=1e-3)
    assert found.id == "theirs"
    np.testing.assert_array_equal(np.array(layer.affine), before)
    assert layer.metadata == {}


def test_units_are_converted_to_millimetres() -> None:
    layer = napari_layers.Image(np.zeros((3, 4, 5)), scale=(2, 1, 1), translate=(10, 0, 0), units=("um",) * 3)
    found = layers.volume_of(layer).geometry
    np.testing.assert_allclose(found.spacing, (0.002, 0.001, 0.001))
    np.testing.assert_allclose(found.origin, (0.01, 0, 0))


def test_scaled_layers_without_a_unit_are_taken_as_millimetres_and_said_so() -> None:
    scaled = layers.volume_of(napari_layers.Image(np.zeros((3, 4, 5)), scale=(2, 1, 1)))
    assert scaled.geometry.has_spacing
    assert any("millimetres" in note for note in scaled.notes)
    plain = layers.volume_of(napari_layers.Image(np.zeros((3, 4, 5))))
    assert not plain.geometry.has_spacing


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_shear_and_too_many_axes_are_refused() -> None:
    sheared = napari_layers.Image(np.zeros((3, 4, 5)), shear=(0.4, 0, 0), units=("mm",) * 3)
    with pytest.raises(InputError, match="sheared"):
        layers.volume_of(sheared)
    with pytest.raises(InputError, match="4 axes"):
        layers.volume_of(napari_layers.Image(np.zeros((2, 3, 4, 5))))


def test_colour_pictures_keep_their_channels(rng: np.random.Generator) -> None:
    geometry = Geometry.from_arrays((6, 5), has_spacing=False)
    volume = Volume(rng.integers(0, 255, (3, 6, 5)).astype(np.uint8), geometry, id="photo")
    layer = build(layers.image_layer(volume))
    assert layer.rgb
    assert str(layer.units[0]) == "pixel"
    back = layers.volume_of(layer)
    np.testing.assert_array_equal(back.array, volume.array)


def test_labels_share_the_array_so_that_strokes_reach_the_volume(volume: Volume) -> None:
    mask = volume.with_array(np.zeros(volume.geometry.shape, np.uint8))
    layer = build(layers.labels_layer(mask, "mask", "scribbles"))
    layer.data_setitem((np.array([1]), np.array([2]), np.array([3])), 4)
    assert mask.array[0, 1, 2, 3] == 4


def test_voxels_that_are_not_in_memory_are_read_when_asked(volume: Volume) -> None:
    dask = pytest.importorskip("dask.array")
    blocks: list[int] = []

    def block(part: np.ndarray) -> np.ndarray:
        blocks.append(1)
        return part

    lazy = dask.from_array(volume.array[0], chunks=(1, 40, 36)).map_blocks(block, dtype=np.int16)
    _, options, _ = layers.image_layer(volume)
    layer = napari_layers.Image(lazy, contrast_limits=(0, 1), **options)
    blocks.clear()
    assert not layers.is_in_memory(layer)
    assert layers.is_in_memory(napari_layers.Image(volume.array[0]))
    read = layers.reader_of(layer)
    assert blocks == []
    back = read()
    np.testing.assert_array_equal(back.array, volume.array)
    assert (back.geometry, back.modality, back.id) == (volume.geometry, "CT", "case-1")


def test_a_moved_layer_and_one_channel_of_many_do_not_show_their_file(volume: Volume) -> None:
    layer = build(layers.image_layer(volume))
    assert layers.shows_its_file(layer)
    layer.translate = np.add(layer.translate, (10.0, 0.0, -4.0))
    assert not layers.shows_its_file(layer)
    two = Volume(np.concatenate([volume.array] * 2), volume.geometry)
    assert not layers.shows_its_file(build(layers.image_layer(two)))
    assert not layers.shows_its_file(napari_layers.Image(np.zeros((2, 2))))
    assert layers.role_of(napari_layers.Image(np.zeros((2, 2)))) == ""
