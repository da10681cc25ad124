from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from medssl.data import parallel
from medssl.data.parallel import DIED, read_in_order


class FakePool:
    """Reads at once; an item below zero kills the process, and with it what was waiting behind it."""

    started: list[int]

    def __init__(self, count: int, *given: Any, **named: Any) -> None:
        self.started.append(count)
        self.is_broken = False

    def __enter__(self) -> FakePool:
        return self

    def __exit__(self, *given: object) -> None:
        return None

    def shutdown(self, **named: Any) -> None:
        return None

    def submit(self, read: Callable[[int], int], item: int) -> Future[int]:
        if self.is_broken:
            raise BrokenProcessPool
        future: Future[int] = Future()
        if item < 0:
            self.is_broken = True
            future.set_exception(BrokenProcessPool())
        else:
            future.set_result(read(item))
        return future


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    pools: list[int] = []
    monkeypatch.setattr(FakePool, "started", pools, raising=False)
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", FakePool)
    return pools


def double(item: int) -> int:
    return 2 * item


def test_results_keep_their_order(started: list[int]) -> None:
    assert list(read_in_order(range(20), double, workers=3)) == [2 * n for n in range(20)]
    assert started == [3]
    assert list(read_in_order(range(3), double, workers=1)) == [0, 2, 4]
    assert list(read_in_order([], double, workers=3)) == []
    assert started == [3], "one process is this one"


@pytest.mark.parametrize("killers", [(0,), (9,), (4, 5), (19,)])
def test_a_scan_that_kills_its_reader_costs_no_other(started: list[int], killers: tuple[int, ...]) -> None:
    items = [-1 if n in killers else n for n in range(20)]
    found = list(read_in_order(items, double, workers=2))
    assert found == [DIED if n in killers else 2 * n for n in range(20)]
    assert len(started) > len(killers)
