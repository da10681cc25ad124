from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

import medssl
from medssl.errors import InputError
from medssl.inference.device import choose_device
from medssl.inference.load import load_encoder
from medssl.protocols import Encoder
from medssl.store.weights import file_checksum, read_metadata, write_weights


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_loaded_encoder_is_frozen_and_says_what_it_is(
    spatial_dims: int, tiny_weights: dict[int, Path]
) -> None:
    path = tiny_weights[spatial_dims]
    encoder = load_encoder(path)
    assert isinstance(encoder, Encoder)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder.signature == file_checksum(path)
    assert [level.stride for level in encoder.levels] == [(s,) * spatial_dims for s in (2, 4, 8, 16)]
    assert encoder.spacing_range == (0.5, 1.25)
    pyramid = encoder(torch.zeros(1, 1, *(32,) * spatial_dims))
    assert [tuple(level.shape) for level in pyramid] == [
        (1, level.channels, *(32 // s for s in level.stride)) for level in encoder.levels
    ]
    assert encoder.prototypes is not None
    norms = torch.linalg.vector_norm(encoder.prototypes.weight, dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    with safe_open(path, "pt") as file:
        torch.testing.assert_close(encoder.features.weight, file.get_tensor("projection.weight"))


def test_weights_without_head_and_projection_load(tiny_weights: dict[int, Path], tmp_path: Path) -> None:
    tensors = {k: v for k, v in load_file(tiny_weights[2]).items() if k.startswith("backbone.")}
    write_weights(tmp_path / "bare.safetensors", tensors, read_metadata(tiny_weights[2]))
    encoder = load_encoder(tmp_path / "bare.safetensors")
    assert encoder.head is None
    assert encoder.prototypes is None
    assert encoder.features.out_channels == 64


def test_tensors_that_do_not_fit_the_header_are_refused(
    tiny_weights: dict[int, Path], tmp_path: Path
) -> None:
    tensors, metadata = load_file(tiny_weights[2]), read_metadata(tiny_weights[2])
    metadata["encoder"]["channels"] = [4, 16, 24, 99]
    write_weights(tmp_path / "wrong.safetensors", tensors, metadata)
    with pytest.raises(InputError, match=r"wrong\.safetensors: header and tensors do not fit"):
        load_encoder(tmp_path / "wrong.safetensors")


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no usable GPU; use --device cpu"):
            choose_device("cuda")


def test_public_names_are_lazy() -> None:
    code = (
        "import sys, medssl; assert 'torch' not in sys.modules and 'SimpleITK' not in sys.modules;"
        "medssl.Volume, medssl.read_volume; assert 'torch' not in sys.modules;"
        "assert set(medssl.__all__) <= set(dir(medssl))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert medssl.load_encoder is load_encoder
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = medssl.nothing
