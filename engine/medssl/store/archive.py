"""Arrays and a JSON header in one file: a zip of .npy members, checked by CRC, no pickle."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.store.atomic import atomic_file

DAMAGE = (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What `read_archive` raises for a file that is not whole, beside OSError."""

_HEADER = "header.json"


def write_archive(path: Path, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Replace ``path`` in one go.

    The fastest compression: masks shrink a hundredfold with any, and a whole CT must not take seconds.

    Args:
        path: the file; its folder exists.
        header: JSON values.
        arrays: by name.
    """
    with (
        atomic_file(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        archive.writestr(_HEADER, json.dumps(header))
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)


def read_archive(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays by name.

    Raises:
        OSError: the file cannot be opened.
        ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error: it is damaged (`DAMAGE`).
    """
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read(_HEADER))
        arrays = {}
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as member:
                    arrays[name.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
    return header, arrays
