"""Small matrix products on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

try:
    from threadpoolctl import ThreadpoolController
except ImportError:  # a bare machine that pre-trains: nothing waits for a small product there
    ThreadpoolController = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep NumPy's matrix products on the calling thread inside the block.

    OpenBLAS splits even tiny products, and its threads spin while they wait for each other: with other
    work on the cores (a training run beside the viewer) a probe took 20 s instead of 0.5 s.
    """
    if ThreadpoolController is None:
        yield
        return
    with ThreadpoolController().limit(limits=1, user_api="blas"):
        yield
