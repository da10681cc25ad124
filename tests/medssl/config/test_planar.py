from __future__ import annotations

import pytest

from medssl.config.hssl import HsslConfig
from medssl.config.lvm_med import LvmMedConfig
from medssl.config.pretrain import SamplingConfig
from medssl.config.sampling import wanted_sampling
from medssl.config.simclr import SimclrConfig
from medssl.config.spark import SparkConfig
from medssl.config.swav import SwavConfig


def test_swav_in_2d_has_the_published_crops() -> None:
    planar, solid = SwavConfig.for_dims({}, 2), SwavConfig.for_dims({}, 3)
    assert (planar.global_size, planar.local_size, planar.local_count) == (224, 96, 6)
    assert (planar.global_scale, planar.local_scale) == ((0.14, 1.0), (0.05, 0.14))
    assert solid == SwavConfig()


@pytest.mark.parametrize("dims", [2, 3])
def test_swav_has_the_augmentation_that_its_specification_marks(dims: int) -> None:
    """Section A.5: turned by up to 10 to 20 degrees, five bands, a blur of up to 2 voxels."""
    settings = SwavConfig.for_dims({}, dims)
    assert 10 <= settings.rotation <= 20
    assert settings.intensity.energy_sigmas == (1, 2, 4, 8, 16)
    assert 0.2 <= settings.intensity.energy_sd <= 0.4
    assert settings.intensity.blur_range == (0.1, 2)


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (SimclrConfig.for_dims({}, 2).views, 224),
        (HsslConfig.for_dims({}, 2).views, 192),
        (LvmMedConfig.for_dims({}, 2), 224),
        (SparkConfig.for_dims({}, 2), None),
        (LvmMedConfig.for_dims({}, 3), 96),
        (HsslConfig.for_dims({}, 3).views, 96),
        (SparkConfig.for_dims({}, 3), None),
    ],
)
def test_views_have_the_published_size(settings, size) -> None:
    assert settings.size == size


@pytest.mark.parametrize(
    ("settings", "family"),
    [
        (LvmMedConfig(), "modality"),
        (SwavConfig(), "modality"),
        (SwavConfig(modality_mode="shared"), "group"),
        (HsslConfig(), "task"),
        (SimclrConfig(), "group"),
    ],
)
def test_what_is_drawn_equally_often_is_what_the_paper_balances(settings, family) -> None:
    assert wanted_sampling(SamplingConfig(), settings, 2).family == family


def test_what_is_given_wins_and_leaves_the_rest() -> None:
    settings = SimclrConfig.for_dims({"views": {"size": 64}, "dim": 32}, 2)
    assert (settings.views.size, settings.views.scale, settings.dim) == (64, (0.08, 1.0), 32)
    assert HsslConfig.for_dims({"views": {"size": 64}}, 2).views.rotation == 15
    assert SwavConfig.for_dims({"global_size": 48}, 2).local_size == 96


def test_the_decoder_of_spark_is_the_published_one_in_2d() -> None:
    assert [SparkConfig.for_dims({}, dims).width for dims in (2, 3)] == [768, 256]
    assert SparkConfig.for_dims({}, 2).aspect == pytest.approx((4 / 3) ** 0.5)
    assert SparkConfig.for_dims({"width": 64}, 2).width == 64
