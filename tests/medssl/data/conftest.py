from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medssl.config.prepare import CacheConfig
from medssl.data.cache import Cache, CacheWriter


def facts(source: str, **changes: object) -> dict[str, object]:
    known: dict[str, object] = {
        "source": source,
        "version": "1",
        "ndim": 3,
        "spacing": [1.0, 1.0, 1.0],
        "modality": "MR",
        "task": "t",
        "group": "g",
        "subject": source,
        "split": "train",
    }
    return {**known, **changes}


@pytest.fixture
def make_cache(tmp_path: Path):
    def make(volumes, dtype: str = "float16", folder: str = "cache") -> Cache:
        """A cache of (array (z, y, x), facts) pairs; a mask may be third."""
        writer = CacheWriter(tmp_path / folder, CacheConfig(dtype=dtype))
        for number, (array, changes, *mask) in enumerate(volumes):
            writer.add(np.asarray(array, np.float32), facts(f"{number:03d}", **changes), *mask)
        writer.close()
        return Cache.open(tmp_path / folder)

    return make
