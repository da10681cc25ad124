from __future__ import annotations

import numpy as np
import pytest

from medssl.commands.evaluate.robust import perturbed_case
from medssl.evaluation.cohort import Case
from medssl.volume import Geometry, Volume
from medssl.volume.normalize import Normalizer


def case(modality: str) -> Case:
    rng = np.random.default_rng(0)
    array = rng.uniform(-150, 250, (1, 12, 14)).astype(np.float32)
    label = (np.indices((12, 14)).sum(axis=0) > 12).astype(np.int16)
    return Case("s", Volume(array, Geometry.from_arrays((12, 14), (0.5, 0.5)), modality, "scan"), label)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_scan_keeps_its_units_where_nothing_changes(modality: str) -> None:
    whole = case(modality)
    same = perturbed_case(whole, "gamma", 0, seed=0)
    low, high = np.percentile(whole.volume.array, (1, 99))
    np.testing.assert_allclose(
        same.volume.array.clip(low, high), whole.volume.array.clip(low, high), atol=0.01
    )
    np.testing.assert_array_equal(same.label, whole.label)
    assert same.volume.geometry == whole.volume.geometry


def test_gamma_is_that_of_the_normalised_scan() -> None:
    whole = case("CT")
    changed = perturbed_case(whole, "gamma", 1, seed=0)
    normalise = Normalizer.fit(whole.volume.array, "CT")
    before, after = normalise(whole.volume.array), normalise(changed.volume.array)
    exponent = np.log(after) / np.log(before)
    assert exponent.mean() == pytest.approx(2, abs=1e-3) or exponent.mean() == pytest.approx(0.5, abs=1e-3)
    np.testing.assert_array_equal(changed.label, whole.label)


def test_a_turned_scan_has_a_turned_label() -> None:
    changed = perturbed_case(case("MR"), "rotation", 1, seed=0)
    assert (changed.label != case("MR").label).any()
    assert set(np.unique(changed.label)) == {-1, 0, 1}
