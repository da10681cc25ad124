"""Check an installed wheel from outside the repository: manifest, bundled weights, nothing editable.

Run by `tox -e wheel` with the clean environment's own Python; it is no pytest module, because that
environment has no pytest.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import medssl

place = Path(medssl.__file__).resolve()
if "site-packages" not in place.parts:
    sys.exit(f"medssl is imported from {place}, not from the wheel")
[entry] = entry_points(group="napari.manifest", name="napari-medssl")
module, _, name = entry.value.partition(":")
if not files(module).joinpath(name).is_file():
    sys.exit(f"the wheel has no manifest {entry.value}")
weights = files("medssl.bundled_weights")
registry = json.loads(weights.joinpath("registry.json").read_text(encoding="utf-8"))
for name, record in registry["weights"].items():
    digest = hashlib.sha256(weights.joinpath(record["file"]).read_bytes()).hexdigest()
    if digest != record["sha256"]:
        sys.exit(f"bundled weights {name}: sha256 {digest} is not the registry's {record['sha256']}")
