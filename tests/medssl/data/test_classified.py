from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medssl.data.classified import (
    ClassifiedImage,
    ClassLoader,
    centred,
    class_names,
    fit_image,
    targets,
)
from medssl.data.table import Row
from medssl.errors import InputError
from medssl.volume import Geometry, Volume


def row(*classes: str) -> Row:
    return Row(Path("x"), classes=classes, origin="t.csv:2")


def test_classes_become_columns():
    rows = [row("b"), row("a"), row("a", "b")]
    names = class_names(rows)
    assert names == ("a", "b")
    assert targets(rows, names, multi_label=True).tolist() == [[False, True], [True, False], [True, True]]
    assert targets([row()], names, multi_label=True).tolist() == [[False, False]]
    for bad in (row(), row("a", "b")):
        with pytest.raises(InputError, match="exactly one"):
            targets([bad], names, multi_label=False)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_large_images_are_shrunk_as_a_whole(spatial_dims):
    shape = (30, 20, 10)[:spatial_dims]
    geometry = Geometry.from_arrays(shape, (1.0,) * spatial_dims, has_spacing=False)
    array = np.linspace(0, 1000, int(np.prod(shape))).reshape(1, *shape).astype(np.float32)
    image, spacing = fit_image(Volume(array, geometry, "MR"), (0.5, 1.25), size=15)
    assert image.shape == (1, *(n // 2 for n in shape))
    assert spacing == (2.0,) * spatial_dims
    assert image.mean() == pytest.approx(0.5, abs=0.03)
    assert fit_image(Volume(array, geometry, "MR"), (0.5, 1.25), size=64)[0].shape == (1, *shape)


def test_images_lie_in_the_middle():
    image = np.arange(1, 7, dtype=np.float16).reshape(1, 2, 3)
    assert centred(image, (4, 3))[0].tolist() == [[0] * 3, [1, 2, 3], [4, 5, 6], [0] * 3]
    assert centred(image, (2, 1))[0].tolist() == [[2], [5]]


def test_every_image_once_per_epoch():
    images = [
        ClassifiedImage(row(), np.full((1, 4, 4), n, np.float16), (1.0, 1.0), np.array([n > 2]))
        for n in range(5)
    ]
    loader = ClassLoader(images, (4, 4), 2, seed=3)
    epoch = [int(value) for step in range(5) for value in loader.batch(step).index]
    assert sorted(epoch[:5]) == sorted(epoch[5:]) == list(range(5))
    assert epoch[:5] != epoch[5:]
    batch = loader.pick([4, 1])
    assert batch.image[:, 0, 0, 0].tolist() == [4, 1]
    assert batch.targets is not None
    assert batch.targets["class"].tolist() == [[1], [0]]
    assert next(loader.batches(2)).index.tolist() == loader.batch(2).index.tolist()
