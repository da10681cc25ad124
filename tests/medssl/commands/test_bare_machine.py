"""Pre-training on a prepared cache with nothing but the few packages that a bare GPU machine has."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import medssl
from medssl.config.prepare import CacheConfig
from medssl.data.cache import CacheWriter
from medssl.methods import METHODS

GIVEN = ("torch", "numpy", "safetensors", "pydantic", "PyYAML", "lightning-fabric", "monai")

TRAIN = """
import sys
sys.path[:0] = [sys.argv[1]]
from medssl import cli
from medssl.commands import pretrain
pretrain._CALIBRATION_BATCHES, pretrain._PROJECTION_CROPS = 1, 4
pretrain._PROJECTION_EDGE = {2: 64, 3: 32}
for method in sys.argv[4:]:
    code = cli.main(["pretrain", method, "--data", sys.argv[2], "--out", f"{sys.argv[3]}/{method}", "--dims",
                     "2", "--encoder", "tiny", "--steps", "1", "--batch-size", "4", "--device", "cpu"])
    assert code == 0, method
"""


def needed(names: tuple[str, ...]) -> set[str]:
    """The distributions, and all that they require without extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another system
        found.add(name)
        waiting += [re.split(r"[^\w.-]", line)[0] for line in requires if "extra ==" not in line]
    return found


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with links to these distributions and to medssl, and nothing else."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in needed(GIVEN):
        for file in metadata.files(name) or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).is_symlink():
                (folder / top).symlink_to(Path(str(metadata.distribution(name).locate_file(top))))
    (folder / "medssl").symlink_to(Path(medssl.__file__).parent)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_every_method_trains_on_a_prepared_cache(bare: Path, tmp_path: Path) -> None:
    writer = CacheWriter(tmp_path / "cache", CacheConfig())
    for number in range(8):
        rng = np.random.default_rng(number)
        values = np.kron(rng.random((1, 8, 8)), np.ones((1, 12, 12))).astype(np.float32)
        facts = {"modality": ("CT", "MR")[number % 2], "task": "t", "group": "g", "subject": f"{number}"}
        place = {"source": f"{number}", "version": "1", "ndim": 2, "spacing": [1.0] * 3, "split": "train"}
        writer.add(values, {**facts, **place})
    writer.close()
    for absent in ("scipy", "SimpleITK", "threadpoolctl.py"):
        assert not (bare / absent).exists()
    command = [sys.executable, "-I", "-S", "-c", TRAIN, *map(str, (bare, tmp_path / "cache", tmp_path))]
    done = subprocess.run([*command, *METHODS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for method in METHODS:
        assert (tmp_path / method / "exported" / "model.safetensors").is_file()
