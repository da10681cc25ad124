"""The sample scan is where it is said to be, and its tissues share its grid."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from medssl.errors import MissingDependencyError
from medssl.io import samples


@pytest.mark.parametrize("tissue", samples.TISSUES)
def test_tissue_maps_share_the_grid_of_the_template(tissue: str) -> None:
    template = nibabel.load(samples.brain_template())
    probability = nibabel.load(samples.tissue_map(tissue))
    assert template.shape == probability.shape == (197, 233, 189)
    np.testing.assert_allclose(template.affine, probability.affine)
    np.testing.assert_allclose(template.header.get_zooms(), 1.0)


def test_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"napari-medssl\[demo\]"):
        samples.brain_template()
