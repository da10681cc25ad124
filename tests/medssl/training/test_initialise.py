from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medssl.training import initialise
from medssl.training.initialise import describe_start


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)})
        self.segmentation = nn.Linear(2, 3)


def test_a_start_is_described_by_what_the_network_has_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, path = Network(), tmp_path / "a.safetensors"
    monkeypatch.setattr(initialise, "resolve", lambda weights: SimpleNamespace(path=path))

    def said(**changes: torch.Tensor) -> str:
        state = {key: value.clone() for key, value in network.state_dict().items() if "backbone" in key}
        save_file({**state, "head.weight": torch.ones(1), **changes}, path)
        return describe_start(network, "a")

    both = "a: encoder 2 of 2 tensors matched, 0 missing; decoder 2 of 2 tensors matched, 0 missing"
    assert said() == f"{both}; 0 reshaped; new: segmentation (2 tensors); not used: head"
    other = nn.Linear(2, 2).state_dict()
    line = said(**{f"backbone.decoder.{name}": value for name, value in other.items()})
    assert "new: decoder (2 tensors), segmentation (2 tensors); not used: decoder, head" in line
    line = said(**{"backbone.encoder.weight": torch.ones(3, 2)})
    assert "encoder 1 of 2 tensors matched, 1 missing" in line
    assert "1 reshaped (backbone.encoder.weight)" in line
