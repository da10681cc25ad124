from __future__ import annotations

import pytest

from medssl.config.data_facts import warning
from medssl.config.moco import MocoConfig


@pytest.mark.parametrize(
    ("queue_length", "steps", "words"),
    [(65536, 2000, "a queue_length well below 64000"), (65536, 2048, ""), (512, 300, "")],
)
def test_a_queue_that_is_never_filled_is_said(queue_length: int, steps: int, words: str) -> None:
    said = warning(MocoConfig(queue_length=queue_length), 32, steps, 2)
    assert words in said
    assert bool(words) == bool(said)
