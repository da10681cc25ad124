"""Settings that no network can be run with show themselves in the first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from medssl.errors import InputError, is_out_of_memory
from medssl.jobs.progress import Steps

T = TypeVar("T")


def blame_settings(steps: Steps[T], settings: str) -> Steps[T]:
    """Training whose first step, where it fails, says which settings do not fit each other.

    Sizes of crops, views and masks, strides of encoders and lengths of queues meet only in a forward pass.
    A failure later than the first step is a defect or a lack of memory, and stays what it is.

    Args:
        steps: from `medssl.training.loop.fit`.
        settings: what to change, for the message.

    Raises:
        InputError: the first step failed.
    """
    with blaming(settings):
        try:
            first = next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
    yield first
    return (yield from steps)


@contextmanager
def blaming(settings: str) -> Iterator[None]:
    """The same for what is done with the network before its first step.

    Args:
        settings: what to change, for the message.

    Raises:
        InputError: what is done failed.
    """
    try:
        yield
    except InputError:
        raise
    except (ValueError, RuntimeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())
        raise InputError(f"the first step failed: {text[:300]}; change {settings}") from error
