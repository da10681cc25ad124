"""A cache of generated volumes, for randomised synthesis where there is no scan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medssl.config.prepare import CacheConfig
from medssl.data.cache import CacheWriter
from medssl.jobs.progress import Progress, Steps
from medssl.transforms.synthesis import random_label_maps, render
from medssl.transforms.view_intensity import ViewIntensity

MODALITY = "generated"
_SIZES = {2: (48, 256), 3: (16, 96)}
"""Number and edge of the volumes: enough to measure statistics and to fit a projection on."""


def write_generated(
    folder: Path, config: CacheConfig, dims: int, intensity: Mapping[str, Any], seed: int
) -> Steps[None]:
    """Fill a cache with generated volumes of 1 mm; those that are there stay.

    Args:
        folder: cache folder.
        config: settings of the cache.
        dims: 2 or 3.
        intensity: values of `medssl.config.augmentation.IntensityConfig` by name, for what is done to them.
        seed: of all draws.
    """
    count, edge = _SIZES[dims]
    changed = ViewIntensity.of(intensity)
    writer = CacheWriter(folder, config)
    try:
        for number in range(count):
            source = f"{MODALITY}-{number:04d}"
            if source not in writer.lines:
                generator = torch.Generator().manual_seed(seed * count + number)
                labels = random_label_maps(1, (edge,) * dims, generator)
                image = changed(render(labels, generator), generator, torch.ones(1, dims))[0, 0]
                facts = {"source": source, "version": str(seed), "ndim": dims, "spacing": [1.0, 1.0, 1.0]}
                facts |= {"modality": MODALITY, "group": MODALITY, "subject": source, "split": "train"}
                writer.add(image.numpy() if dims == 3 else image[None].numpy(), facts)
            yield Progress(number + 1, count, "preparing", message=source)
    finally:
        writer.close()
