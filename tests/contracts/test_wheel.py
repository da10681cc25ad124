"""The built wheel carries what the source tree has: every module, the manifest, the bundled weights."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {"engine/medssl": "medssl", "napari_medssl": "napari_medssl", "weights": "medssl/bundled_weights"}


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    # Setuptools writes its build folder beside setup.py: build from a copy, not from the working tree.
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    [wheel] = folder.glob("napari_medssl-*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("source", SOURCES)
def test_wheel_holds_every_file(wheel_names: set[str], source: str) -> None:
    files = [file.relative_to(ROOT / source) for file in (ROOT / source).rglob("*") if file.is_file()]
    wanted = {f"{SOURCES[source]}/{file.as_posix()}" for file in files if "__pycache__" not in file.parts}
    assert wanted
    assert wanted <= wheel_names


def test_wheel_holds_nothing_else(wheel_names: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"medssl", "napari_medssl"}
