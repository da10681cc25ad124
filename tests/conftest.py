"""Fixtures that any test may use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run."""
    return np.random.default_rng(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run."""
    reasons = {"data": no_data(), "gui": no_window(), "gpu": no_gpu(items)}
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def no_data() -> str:
    """Why tests on real scans cannot run; empty where they can."""
    folder = os.environ.get("MEDSSL_DATA")
    return "" if folder and Path(folder).is_dir() else "MEDSSL_DATA names no folder of real scans"


def no_window() -> str:
    """Why no window can be opened; empty where one can."""
    if not os.environ.get("DISPLAY") and not shutil.which("Xvfb"):
        return "no display and no Xvfb"
    return ""


def no_gpu(items: list[pytest.Item]) -> str:
    """Why CUDA tests cannot run; torch is only asked where such a test was collected."""
    if not any(item.get_closest_marker("gpu") for item in items):
        return ""
    import torch

    return "" if torch.cuda.is_available() else "no CUDA device"
