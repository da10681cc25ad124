"""What the demo takes for classes, truth and seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medssl.commands.demo.case import TISSUES, own_case, sample_case
from medssl.commands.workspace import Workspace
from medssl.volume import Geometry, Volume


def test_sample_knows_its_tissues() -> None:
    case = sample_case(Workspace("cpu"))
    assert case.truth is not None
    assert case.names == TISSUES
    assert case.truth[0, 0, 0] == 1  # a corner is background
    assert case.volume.array[0][case.truth == 1].max() == 0
    means = [case.volume.array[0][case.truth == value].mean() for value in (2, 3, 4)]
    assert means == sorted(means)  # T1: fluid darker than grey, grey darker than white matter
    known = case.sure > 0
    np.testing.assert_array_equal(case.sure[known], case.truth[known])
    # The template's left putamen: 26 mm left of the midline, deep grey matter.
    np.testing.assert_allclose(case.volume.geometry.to_world(case.seed), (2, -4, 26), atol=0.51)
    assert case.truth[case.seed] == TISSUES.index("grey matter") + 1


def test_own_scan_gets_prototypes_for_classes() -> None:
    regions = np.zeros((4, 6, 8), np.uint8)
    regions[:, 1:4, 1:4] = 3
    regions[:, 4:6, 5:7] = 1
    volume = Volume(np.zeros((1, 4, 6, 8), np.float32), Geometry.from_arrays((4, 6, 8)))
    case = own_case(volume, Path("scan.nii"), regions)
    assert case.names == ("air", "prototype 1", "prototype 3")
    assert case.truth is None
    np.testing.assert_array_equal(case.sure == 3, regions == 3)
    np.testing.assert_array_equal(case.sure == 1, regions == 0)
    assert regions[case.seed] == 3
