from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from medssl.commands.evaluate import robust
from medssl.commands.evaluate.robust import perturbed_case, robustness, search_robustness
from medssl.config.evaluate import EvaluateConfig, Family
from medssl.evaluation.cohort import Case, Cohort
from medssl.evaluation.perturbations import perturb
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


class Fading:
    """An assay whose score falls by the mean change of the scan."""

    metric = "dice"
    scan = torch.linspace(0.1, 0.9, 64).view(1, 1, 8, 8)

    def lost(self, family: Family, strength: float) -> float:
        changed, _ = perturb(self.scan, None, family=family, strength=strength, seed=3, name="s")
        return float((changed - self.scan).abs().mean())

    def score(self, task: object, subjects: int | None = None, perturb: Any = None) -> Any:
        changed = self.scan if perturb is None else perturb(self.scan, None, "s")[0]
        value = 0.9 - float((changed - self.scan).abs().mean())
        return value, {"s": value}


def settings(**more: object) -> EvaluateConfig:
    values = {"protocol": "robustness", "data": ("t.csv",), "out": "o", "strengths": 2, **more}
    return EvaluateConfig.model_validate({"families": ("gamma", "contrast"), **values})


def test_the_loss_is_the_area_between_clean_and_changed_scores() -> None:
    assay = Fading()
    metrics, series, detail = robustness(assay, None, settings(), seed=3)  # type: ignore[arg-type]
    expected = {}
    for family in ("gamma", "contrast"):
        half, whole = assay.lost(family, 0.5), assay.lost(family, 1.0)
        assert 0 < half < whole
        expected[f"loss in {family}"] = 0.5 * half / 2 + 0.5 * (half + whole) / 2
        assert series[family] == pytest.approx([0.9, 0.9 - half, 0.9 - whole])
        assert detail[f"{family} 0.5"] == {"s": pytest.approx(0.9 - half)}
    assert expected["loss in gamma"] != pytest.approx(expected["loss in contrast"])
    assert metrics == pytest.approx({"dice": 0.9, **expected, "loss": sum(expected.values()) / 2})


def test_the_loss_of_search_is_the_area_between_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    slope = {"gamma": 0.2, "contrast": 0.4}

    def precision(*given: object, asked_in: Any = None, **named: object) -> Any:
        lost = 0.0 if asked_in is None else slope[asked_in[0][0]] * asked_in[0][1]
        return {"precision": 0.8 - lost}, {}

    monkeypatch.setattr(robust, "retrieval", precision)
    monkeypatch.setattr(robust, "perturbed_case", lambda case, family, strength, seed: (family, strength))
    cohort = Cohort("c", ("first", "second"), (1,), "", ())  # type: ignore[arg-type]
    metrics = search_robustness(cohort, None, settings(), seed=0)  # type: ignore[arg-type]
    assert metrics == pytest.approx(
        {
            "precision": 0.8,
            "precision loss in gamma": 0.1,
            "precision loss in contrast": 0.2,
            "precision loss": 0.15,
        }
    )
