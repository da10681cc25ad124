from __future__ import annotations

import pytest

from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps, drain
from medssl.training.first_step import blame_settings


def training(errors: dict[int, Exception], steps: int = 3) -> Steps[str]:
    for step in range(1, steps + 1):
        if step in errors:
            raise errors[step]
        yield Progress(step, steps, "training")
    return "done"


def test_a_training_that_runs_is_left_alone() -> None:
    seen: list[int] = []
    assert (
        drain(blame_settings(training({}), "--crop"), lambda progress: seen.append(progress.step)) == "done"
    )
    assert seen == [1, 2, 3]
    assert drain(blame_settings(training({}, steps=0), "--crop")) == "done"


def test_a_first_step_that_cannot_be_names_the_settings() -> None:
    error = RuntimeError("Given input size: (8x1x1).\nCalculated output size: (8x0x0)")
    with pytest.raises(
        InputError, match=r"first step failed: Given input .*0x0\); change --crop 8"
    ) as caught:
        drain(blame_settings(training({1: error}), "--crop 8"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("step", "error"),
    [(1, RuntimeError("CUDA out of memory")), (1, InputError("loss became nan")), (2, ValueError("defect"))],
)
def test_what_is_not_the_settings_stays_what_it_is(step: int, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        drain(blame_settings(training({step: error}), "--crop"))
    assert caught.value is error


def test_closing_reaches_the_training() -> None:
    closed = []

    def watched() -> Steps[None]:
        try:
            yield from training({})
        finally:
            closed.append(True)

    steps = blame_settings(watched(), "--crop")
    next(steps)
    steps.close()
    assert closed == [True]
