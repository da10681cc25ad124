"""Whole-volume embedding against the bare encoder and against MONAI's sliding window."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer

from medssl.inference.embed import VolumeSource, embed_volume
from medssl.inference.load import LoadedEncoder, load_encoder
from medssl.volume import Geometry, Volume

pytestmark = pytest.mark.benchmark

WEIGHTS = os.environ.get("MEDSSL_BENCHMARK_WEIGHTS", "default")
SHAPE = (160, 192, 160)


@pytest.fixture(scope="module")
def encoder() -> LoadedEncoder:
    return load_encoder(WEIGHTS)


@pytest.fixture(scope="module")
def volume(encoder: LoadedEncoder) -> Volume:
    """Noise on the encoder's working grid: no resampling, every voxel inside."""
    spacing = float(np.clip(1.0, *encoder.spacing_range))
    values = np.random.default_rng(0).normal(100, 30, (1, *SHAPE)).astype(np.float32)
    geometry = Geometry.from_arrays(SHAPE, (spacing,) * 3)
    return Volume(values, geometry, "MR", "noise")


@pytest.fixture(scope="module")
def voxels(encoder: LoadedEncoder, volume: Volume) -> torch.Tensor:
    source = VolumeSource(volume, encoder)
    return source(tuple((0, n) for n in source.shape))


def test_against_one_pass(encoder, volume, voxels, figures, seconds) -> None:
    def one_pass() -> None:
        with torch.inference_mode():
            encoder(voxels)

    ours, bare = seconds(lambda: embed_volume(volume, encoder), one_pass, runs=5)
    how = f"one pass over {'x'.join(map(str, SHAPE))} voxels: {bare:.2f} s"
    figures.at_most("embedding / bare encoder", ours / bare, 1.5, "x", reference=how, runs=5)


def test_against_sliding_window(encoder, volume, voxels, figures, seconds) -> None:
    windows = {
        size: SlidingWindowInferer((size,) * 3, sw_batch_size=1, overlap=0.25, mode="constant")
        for size in (96, 128, 160)
    }

    def slide(size: int) -> None:
        with torch.inference_mode():
            windows[size](voxels, lambda x: encoder.features(encoder(x)))

    ours, *theirs = seconds(
        lambda: embed_volume(volume, encoder), *(lambda size=size: slide(size) for size in windows), runs=3
    )
    best = int(np.argmin(theirs))
    size = list(windows)[best]
    how = f"MONAI, same network and projection, overlap 0.25, window {size} (best of 96, 128, 160)"
    name = "SlidingWindowInferer / embedding"
    figures.at_least(name, theirs[best] / ours, 1.5, "x", reference=how, runs=3)


def test_equal_to_one_pass(encoder, volume, voxels, figures) -> None:
    ours = torch.from_numpy(embed_volume(volume, encoder).array.astype(np.float32))
    with torch.inference_mode():
        whole = encoder.features(encoder(voxels))[0][(slice(None), *(slice(n) for n in ours.shape[1:]))]
    # The stored map is float16: half a unit in its last place is no difference of the tiles.
    rounding = torch.finfo(torch.float16).eps / 2 * whole.abs()
    worst = float(((ours - whole).abs() - rounding).max())
    figures.at_most(
        "cells against one pass", max(worst, 0.0), 1e-4, "", reference="largest difference beyond float16"
    )


LARGE = """
import json, resource, sys, time
import numpy as np
from medssl.inference.embed import embed_volume
from medssl.inference.load import load_encoder
from medssl.volume import Geometry, Volume

shape = (300, 512, 512)
noise = np.random.default_rng(0).integers(-1000, 1000, (1, 38, 64, 64), dtype=np.int16)
array = noise.repeat(8, 1).repeat(8, 2).repeat(8, 3)[:, :300].copy()
volume = Volume(array, Geometry.from_arrays(shape, (1.25, 0.75, 0.75)), "CT", "large")
encoder = load_encoder(sys.argv[1])
start = time.perf_counter()
features = embed_volume(volume, encoder)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "above": peak - array.nbytes, "shape": features.array.shape}))
"""


@pytest.mark.timeout(900)
def test_large_ct(encoder, figures, tmp_path: Path) -> None:
    script = tmp_path / "large.py"
    script.write_text(LARGE, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script), WEIGHTS], capture_output=True, check=True, text=True)
    taken = json.loads(done.stdout)
    assert taken["shape"][0] == 64
    how = "512 x 512 x 300 voxels of 0.75 x 0.75 x 1.25 mm, own process"
    figures.at_most("large CT, time", taken["seconds"], 240, "s", reference=how)
    how += "; peak of the process less the input"
    figures.at_most("large CT, memory", taken["above"] / 2**30, 3, "GiB", reference=how)
