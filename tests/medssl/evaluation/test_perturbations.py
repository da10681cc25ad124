from __future__ import annotations

import pytest
import torch

from medssl.config.evaluate import FAMILIES, Family
from medssl.evaluation.perturbations import LARGEST, area, grades, perturb


@pytest.fixture(params=[2, 3])
def scan(request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright block off the centre on a slope, and its label."""
    shape = (17, 21, 15)[: request.param]
    image = torch.linspace(0.2, 0.5, 15 if request.param == 3 else 21).expand(1, 1, *shape).clone()
    label = torch.zeros(1, 1, *shape, dtype=torch.int64)
    label[(..., *(slice(4, 9),) * request.param)] = 1
    return image + 0.3 * label, label


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_for_all_models_graded_and_within_the_range(family: Family, scan) -> None:
    image, label = scan

    def changed(strength: float, seed: int = 0, name: str = "a") -> torch.Tensor:
        moved, known = perturb(image, label, family=family, strength=strength, seed=seed, name=name)
        assert moved.shape == image.shape
        assert moved.min() >= 0
        assert moved.max() <= 1
        assert known is not None
        assert known.shape == label.shape
        return moved

    torch.testing.assert_close(changed(0), image, rtol=0, atol=0)
    torch.testing.assert_close(changed(0.5), changed(0.5), rtol=0, atol=0)
    distance = [float((changed(s) - image).abs().mean()) for s in (0.01, 0.5, 1.0)]
    assert 0 < distance[0] < distance[1] < distance[2]
    assert any(not torch.equal(changed(1), changed(1, seed=seed)) for seed in range(1, 20))
    assert any(not torch.equal(changed(1), changed(1, name=name)) for name in "bcdefghijklmnop")


@pytest.mark.parametrize("family", ["rotation", "scaling"])
def test_the_label_moves_with_the_image(family: Family, scan) -> None:
    _, label = scan
    bright = 0.9 * label.float()
    for name in "abcd":
        moved, known = perturb(bright, label, family=family, strength=1, seed=0, name=name)
        assert known is not None
        inside, outside = moved[known == 1], moved[known == 0]
        assert inside.mean() > 0.6
        assert outside.mean() < 0.1
    alone, none = perturb(bright, None, family=family, strength=1, seed=0, name="d")
    assert none is None
    torch.testing.assert_close(alone, moved)


def test_strength_one_is_what_is_written() -> None:
    assert set(LARGEST) == set(FAMILIES)
    half = torch.full((1, 1, 8, 8), 0.25)
    found = {
        float(perturb(half, None, family="gamma", strength=1, seed=0, name=name)[0][0, 0, 0, 0])
        for name in "abcdefgh"
    }
    assert found == {0.0625, 0.5}


def test_area_of_a_straight_line_is_a_triangle() -> None:
    assert grades(4) == (0.25, 0.5, 0.75, 1)
    assert area(grades(4), [0.25, 0.5, 0.75, 1]) == pytest.approx(0.5)
    assert area((1.0,), [0.3]) == pytest.approx(0.15)
    assert area(grades(2), [0, 0]) == 0
