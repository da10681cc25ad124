from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medssl import cli
from medssl.commands import prepare
from medssl.config.prepare import PrepareConfig
from medssl.data.cache import Cache
from medssl.io import read_volume
from medssl.jobs.progress import drain
from medssl.volume.normalize import Normalizer


@pytest.mark.parametrize("workers", [1, 2])
def test_real_files_become_normalised_volumes(scans: Path, tmp_path: Path, workers: int) -> None:
    (tmp_path / "9.nii.gz").write_bytes(b"not an image")
    with scans.open("a") as stream:
        stream.write("9.nii.gz,s9,CT,ct,train\n")
    config = PrepareConfig(data=scans, out=tmp_path / "cache", dtype="int16", workers=workers, foreground=0)
    result = drain(prepare.run(config))
    assert result.volumes == 4
    assert [image for image, _ in result.failures] == [f"{scans}:6"]
    cache = Cache.open(config.out)
    assert cache.column("modality") == ["CT", "MR"]
    for row in range(4):
        subject = cache.column("subject")[cache.entries["subject"][row]]
        volume = read_volume(tmp_path / f"{subject[1:]}.nii.gz")
        modality = cache.column("modality")[cache.entries["modality"][row]]
        expected = Normalizer.fit(volume.array, modality)(volume.array)[0]
        np.testing.assert_allclose(cache.read(row, (0, 0, 0), cache.shape(row)), expected, atol=1e-4)
        np.testing.assert_allclose(cache.entries["spacing"][row], volume.geometry.spacing, rtol=1e-5)
    again = drain(prepare.run(config))
    assert (again.volumes, again.reused) == (4, 4)


def test_an_interrupted_prepare_is_resumed_from_its_folder(scans: Path, tmp_path: Path, capsys) -> None:
    config = PrepareConfig(data=scans, out=tmp_path / "cache", dtype="int16", workers=1)
    steps = prepare.run(config)
    next(steps)
    steps.close()
    assert len(Cache.open(config.out)) == 1
    assert cli.main(["prepare", "--resume", str(config.out)]) == 0
    assert "4 volumes" in capsys.readouterr().out
    assert not (config.out / "prepare.yaml").exists()
