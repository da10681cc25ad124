"""The generated CT: what is known about it is true."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from medssl.data.phantom import ORGANS, ct_phantom
from medssl.io.values import guess_modality


@pytest.fixture(scope="module")
def phantom():
    """The default one."""
    return ct_phantom()


def test_equal_seeds_give_equal_phantoms(phantom):
    again, other = ct_phantom(), ct_phantom(seed=1)
    np.testing.assert_array_equal(again.volume.array, phantom.volume.array)
    assert again.boxes == phantom.boxes
    assert not np.array_equal(other.labels.array, phantom.labels.array)
    assert other.volume.id != phantom.volume.id == "ct-phantom"


def test_it_is_a_ct_in_hounsfield_units(phantom):
    assert phantom.volume.modality == "CT"
    assert phantom.volume.array.dtype == np.int16
    assert phantom.volume.array.min() >= -1024
    assert guess_modality(phantom.volume.array, "x")[0] == "CT"
    assert "phantom" in phantom.volume.notes[0]
    assert phantom.volume.geometry.matches(phantom.labels.geometry)
    assert phantom.volume.geometry.matches(phantom.lesions.geometry)


@pytest.mark.parametrize(
    ("organ", "low", "high"),
    [
        ("fat", -130, -70),
        ("muscle", 30, 70),
        ("lung", -900, -700),
        ("liver", 80, 130),
        ("kidney", 160, 220),
        ("spine", 350, 500),
        ("vessel", 180, 280),
    ],
)
def test_organs_have_plausible_values(phantom, organ, low, high):
    number = {name: number for number, name in ORGANS.items()}[organ]
    inside = ndimage.binary_erosion(phantom.labels.array[0] == number, iterations=2)
    assert inside.sum() > 100
    assert low < np.median(phantom.volume.array[0][inside]) < high


def test_air_surrounds_the_body(phantom):
    outside = phantom.labels.array[0] == 0
    assert np.median(phantom.volume.array[0][outside]) == pytest.approx(-1000, abs=5)
    assert outside[:, 0].all()
    assert outside[:, :, -1].all()


def test_lesions_are_where_their_boxes_say(phantom):
    instances = phantom.lesions.array[0]
    assert len(phantom.boxes) == 6 == instances.max()
    found = ndimage.find_objects(instances)
    for number, (box, place) in enumerate(zip(phantom.boxes, found, strict=True), start=1):
        assert (box.start, box.stop) == tuple(zip(*((s.start, s.stop) for s in place), strict=True))
        widths = np.subtract(box.stop, box.start)
        assert ((widths >= 3) & (widths <= 6)).all()
        organ = box.label.removesuffix(" lesion")
        organs = {ORGANS[int(n)] for n in np.unique(phantom.labels.array[0][instances == number])}
        assert organs == {organ}
    assert {box.label for box in phantom.boxes} == {"liver lesion", "lung lesion"}


def test_lesions_do_not_touch_and_can_be_seen(phantom):
    instances = phantom.lesions.array[0]
    assert ndimage.label(instances > 0, ndimage.generate_binary_structure(3, 3))[1] == len(phantom.boxes)
    values = phantom.volume.array[0].astype(float)
    for number, box in enumerate(phantom.boxes, start=1):
        core = values[instances == number].mean()
        ring = ndimage.binary_dilation(instances == number, iterations=4) & (instances == 0)
        contrast = core - np.median(values[ring])
        assert contrast < -30 if box.label.startswith("liver") else contrast > 300


@pytest.mark.parametrize("shape", [(32, 48, 48), (48, 64, 64)])
def test_small_phantoms_have_lesions_too(shape):
    small = ct_phantom(shape, (4.0, 3.0, 3.0), lesions=2)
    assert small.volume.geometry.spacing == (4.0, 3.0, 3.0)
    assert len(small.boxes) == 2


def test_too_many_lesions_are_refused():
    with pytest.raises(ValueError, match="200 lesions do not fit"):
        ct_phantom((32, 48, 48), lesions=200)


def test_importing_it_loads_no_torch():
    code = "import sys, medssl.data.phantom; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
