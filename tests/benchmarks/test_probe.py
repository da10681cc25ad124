"""A correction: the probe is fitted again and every voxel of the volume classified."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medssl.probing.linear import LinearProbe
from medssl.probing.samples import Scan
from medssl.volume import Geometry, Volume

pytestmark = pytest.mark.benchmark

SIZE, CLASSES, LABELLED, DIM = 128, 5, 5000, 64


def test_refit_and_predict(figures, seconds) -> None:
    rng = np.random.default_rng(0)
    fields = ndimage.gaussian_filter(rng.standard_normal((CLASSES, SIZE, SIZE, SIZE)), (0, 8, 8, 8))
    truth = 1 + fields.argmax(0)
    geometry = Geometry.from_arrays((SIZE,) * 3)
    noise = rng.normal(0, 20, truth.shape)
    volume = Volume((100 * truth + noise)[None].astype(np.float32), geometry, "MR", "fields")
    grid = geometry.cells((4, 4, 4))
    centre = truth[2::4, 2::4, 2::4]
    vectors = rng.standard_normal((CLASSES + 1, DIM))[centre] + rng.normal(0, 2, (*centre.shape, DIM))
    features = Volume(np.moveaxis(vectors, -1, 0).astype(np.float16), grid, "MR", "fields")
    chosen = rng.choice(truth.size, LABELLED, replace=False)
    labels = np.zeros(truth.size, np.uint8)
    labels[chosen] = truth.ravel()[chosen]
    labels = labels.reshape(truth.shape)
    scan = Scan(volume, features)
    probe = LinearProbe().fit([(scan, labels)])

    def refit() -> float:
        probe.fit([(scan, labels)])
        return float((probe.predict(scan).labels == truth).mean())

    assert refit() > 0.6

    def first_fit() -> object:
        return LinearProbe().fit([(scan, labels)]).predict(scan)

    warm, first = seconds(refit, first_fit, runs=5)
    how = f"{SIZE}^3 voxels, {CLASSES} classes, {LABELLED} labelled; from nothing {first:.2f} s"
    figures.at_most("probe refit and prediction", warm, 2.0, "s", reference=how, runs=5)
