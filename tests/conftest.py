"""Fixtures that any test may use."""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest


def why_no_qt() -> str:
    """Why Qt's widgets cannot be loaded (no binding, no system libraries); empty where they can."""
    try:
        import_module("qtpy.QtWidgets")
    except ImportError as error:  # qtpy's own errors are ImportErrors too
        return str(error)
    return ""


NO_QT = why_no_qt()
collect_ignore = ["napari_medssl"] if NO_QT else []


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--device``."""
    parser.addoption(
        "--device",
        choices=("cpu", "elsewhere", "cuda"),
        default="cpu",
        help="where the engine computes: elsewhere is a stand-in for a GPU (tests/support/second_device.py)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Give the engine its device before any test is imported."""
    if (name := config.getoption("--device")) != "cpu":
        from placement import compute_on

        compute_on(name)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest):
    """Where the engine computes in this run, a `torch.device`."""
    import torch

    return torch.device(request.config.getoption("--device"))


def pytest_report_header() -> list[str]:
    """Say what is left out before a test is collected."""
    return [f"the tests of the plugin are left out: {NO_QT}"] if NO_QT else []


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


def write_tiny_weights(path: Path, spatial_dims: int, seed: int = 0) -> Path:
    """A weights file of a small random encoder with head, prototypes and projection.

    Running statistics are those of noisy blocks: with the initial ones all cells would look alike.
    """
    import torch

    from medssl.nets.dense import DenseFeatures, fit_projection
    from medssl.nets.encoders import ResidualEncoder
    from medssl.nets.heads import ProjectionHead, Prototypes
    from medssl.store.weights import write_weights

    torch.manual_seed(seed)
    encoder = ResidualEncoder(spatial_dims, 1, (4, 16, 24, 32), (1, 1, 1, 1), padding="replicate")
    head = ProjectionHead(72, 24, 16)
    prototypes = Prototypes(16, 12)
    dense = DenseFeatures(encoder.levels)
    for module in (*encoder.modules(), *head.modules()):
        if hasattr(module, "momentum"):
            module.momentum = None  # statistics of all passes alike
    with torch.no_grad():
        coarse = torch.rand(2, 1, *(6,) * spatial_dims)
        noise = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)
        noise = noise.repeat_interleave(8, 4) if spatial_dims == 3 else noise
        seen = []
        for _ in range(3):
            cells = dense.concatenated(encoder(noise + 0.1 * torch.randn(noise.shape)))
            cells = cells.flatten(2).transpose(1, 2).reshape(-1, 72)
            head(cells)
            seen.append(cells)
        fit_projection(dense, seen[-2], seen[-1])
        # some cells as prototypes: random ones may all lie further away than a single winner
        prototypes.weight.copy_(head.eval()(cells[:: len(cells) // 12][:12]))
    tensors = {f"backbone.encoder.{k}": v.numpy() for k, v in encoder.state_dict().items()}
    tensors |= {f"head.{k}": v.numpy() for k, v in head.state_dict().items()}
    tensors |= {
        "prototypes.weight": prototypes.weight.detach().numpy(),
        "projection.weight": dense.weight.numpy(),
        "projection.mean": dense.mean.numpy(),
    }
    metadata = {
        "method": "random",
        "encoder": {"name": "test", **encoder.config},
        "preprocessing": {"spacing_range": [0.5, 1.25]},
        "modalities": ["CT", "MR"],
    }
    write_weights(path, tensors, metadata)
    return path


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Weights files of a small random encoder by spatial dimensions, {2: path, 3: path}."""
    folder = tmp_path_factory.mktemp("weights")
    return {n: write_tiny_weights(folder / f"tiny{n}.safetensors", n) for n in (2, 3)}
