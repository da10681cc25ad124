"""Scans read by several processes, in order; one that kills its reader costs no other."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")

Results = Generator[T | str, None, None]

DIED = "the reading process died (out of memory?); try --workers 1"


def read_in_order(items: Sequence[S], read: Callable[[S], T], workers: int = 0) -> Results[T]:
    """Results in the order of ``items``, with few of them in memory at a time.

    When a process dies, nobody says which item it was reading: the first one without a result is read again
    in a process of its own, and a new pool goes on behind it.

    Args:
        items: what to read; must survive pickling, as ``read`` must.
        read: called in another process, or here where one is enough.
        workers: processes; 0 takes one per core, at most 4.

    Returns:
        One result per item, `DIED` for an item whose process died.
    """
    count = min(workers or min(4, os.cpu_count() or 1), len(items))
    if count <= 1:
        yield from map(read, items)
        return
    position = 0
    while position < len(items):
        with _pool(count) as pool:
            for result in _until_broken(pool, items[position:], read, 2 * count):
                yield result
                position += 1
        if position < len(items):
            with _pool(1) as alone:
                yield next(_until_broken(alone, items[position : position + 1], read, 1), DIED)
            position += 1


def _until_broken(pool: Executor, items: Sequence[S], read: Callable[[S], T], ahead: int) -> Iterator[T]:
    waiting: deque[Future[T]] = deque()
    try:
        for index in range(len(items) + ahead):
            if index < len(items):
                waiting.append(pool.submit(read, items[index]))
            if index >= ahead and waiting:
                yield waiting.popleft().result()
    except BrokenProcessPool:
        # what was finished before the process died is not lost
        while waiting and waiting[0].done() and waiting[0].exception() is None:
            yield waiting.popleft().result()


@contextmanager
def _pool(count: int) -> Iterator[Executor]:
    # spawn: forking a process that runs threads (a viewer, torch) may deadlock
    with ProcessPoolExecutor(count, get_context("spawn"), initializer=_ignore_interrupts) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the whole process group; the parent alone decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
