"""A JPEG without its end is no image."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from medssl.errors import InputError
from medssl.io import read_volume
from medssl.io.jpeg import is_truncated_jpeg


@pytest.fixture
def picture(tmp_path, rng):
    """Noise, with a thumbnail that has an end marker of its own."""
    values = rng.integers(0, 255, (64, 80)).astype(np.uint8)
    Image.fromarray(values[:16, :16]).save(tmp_path / "thumb.jpg")
    thumb = (tmp_path / "thumb.jpg").read_bytes()
    path = tmp_path / "a.jpg"
    Image.fromarray(values).save(path, quality=95)
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(thumb) + 2).to_bytes(2, "big") + thumb + data[2:])
    return path


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
@pytest.mark.parametrize("behind", [b"", b"\0" * 7, b"\n", b"a trailer of the camera"])
def test_a_whole_picture_is_read(tmp_path, rng, options, behind):
    values = np.kron(rng.integers(0, 255, (6, 7)), np.ones((8, 8))).astype(np.uint8)
    path = tmp_path / "whole.jpeg"
    Image.fromarray(values).save(path, quality=100, **options)
    path.write_bytes(path.read_bytes() + behind)
    assert not is_truncated_jpeg(path)
    np.testing.assert_allclose(read_volume(path).array[0].astype(int), values, atol=8)


@pytest.mark.parametrize("behind", [b"", b"\0\0"])
@pytest.mark.parametrize("missing", [2, 100, 2000])
def test_a_truncated_picture_is_refused_without_a_word_of_the_library(picture, capfd, missing, behind):
    picture.write_bytes(picture.read_bytes()[:-missing] + behind)
    with pytest.raises(InputError, match=r"a\.jpg: truncated"):
        read_volume(picture)
    assert capfd.readouterr() == ("", "")


def test_json_of_a_damaged_picture_is_json(picture):
    """Bytes are lost in the middle: the picture can be read, and libjpeg complains on stdout."""
    data = picture.read_bytes()
    picture.write_bytes(data[:-3000] + data[-500:])
    done = subprocess.run(
        [sys.executable, "-m", "medssl", "info", str(picture), "--json"], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["shape"] == [64, 80]
