from __future__ import annotations

import pytest
from pydantic import ValidationError

from medssl.config.swav import SwavConfig


@pytest.mark.parametrize(
    ("crops", "modalities", "batch_size", "words"),
    [
        ({}, 1, 16, "crops.queue_length 734 or more"),  # 3000 / 4 - 16
        ({}, 2, 16, "crops.queue_length 367 or more"),
        ({"queue_length": 734}, 1, 16, ""),
        ({"prototypes": 64}, 1, 16, ""),
        ({"prototypes": 68}, 1, 16, "crops.queue_length 1 or more"),
        ({"weight": 0.0}, 1, 16, ""),
    ],
)
def test_few_samples_per_prototype_are_said(crops, modalities: int, batch_size: int, words: str) -> None:
    config = SwavConfig.model_validate({"crops": crops, "cells": {"weight": 1.0, "prototypes": 256}})
    said = config.too_few_samples(batch_size, modalities)
    assert words in said
    assert bool(words) == bool(said)


def test_the_largest_block_decides() -> None:
    """Volumes 10000 : 100 share 3000 prototypes as 10 : 1 by their roots: 2727 / 4 - 16 / 2."""
    config = SwavConfig(prototype_split="sqrt").for_modalities((10_000, 100))
    assert "crops.queue_length 674 or more" in config.too_few_samples(16, 2)
    generated = SwavConfig(synthetic=0.25)  # three blocks of 1000; of 16 samples 6, 6 and 4
    assert "crops.queue_length 246 or more" in generated.too_few_samples(16, 2)
    shared = SwavConfig(prototype_split="sqrt", modality_mode="shared").for_modalities((10_000, 100))
    assert "crops.queue_length 367 or more" in shared.too_few_samples(16, 2)


def test_cells_count_all_places_of_a_crop() -> None:
    config = SwavConfig.model_validate(
        {"crops": {"weight": 0}, "cells": {"weight": 1, "prototypes": 256}, "cells_per_crop": 2}
    )
    assert "cells.queue_length 56 or more" in config.too_few_samples(4, 1)  # 256 / 4 - 4 * 2


@pytest.mark.parametrize("mode", ["shared", "per_modality_marginal"])
def test_a_softmax_over_the_block_needs_codes_within_it(mode: str) -> None:
    with pytest.raises(ValidationError, match=f"codes of {mode} reach out of the block"):
        SwavConfig.model_validate({"softmax_over": "block", "modality_mode": mode})
    SwavConfig.model_validate({"softmax_over": "block", "modality_mode": "partitioned"})
