from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medssl.errors import InputError
from medssl.inference.load import load_encoder
from medssl.nets.backbone import Backbone
from medssl.nets.dense import DenseFeatures
from medssl.nets.encoders import ResidualEncoder, build_encoder
from medssl.nets.heads import ProjectionHead, Prototypes
from medssl.training.export import export_weights
from medssl.training.initialise import initialise


def export(
    path: Path, spatial_dims: int, seed: int = 0
) -> tuple[Backbone, DenseFeatures, ProjectionHead, Prototypes]:
    torch.manual_seed(seed)
    backbone = Backbone(build_encoder("tiny", spatial_dims)).eval()
    dense = DenseFeatures(backbone.encoder.levels)
    dense.weight.normal_()
    head, prototypes = ProjectionHead(dense.in_channels, 16, 8), Prototypes(8, 5)
    prototypes.normalize_()
    metadata = {
        "method": "swav",
        "encoder": backbone.encoder.config,
        "preprocessing": {"spacing_range": [0.5, 2]},
    }
    export_weights(path, backbone, metadata, dense=dense, modules={"head": head, "prototypes": prototypes})
    return backbone, dense, head, prototypes


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_what_is_loaded_computes_the_same(tmp_path: Path, spatial_dims: int) -> None:
    backbone, dense, head, prototypes = export(tmp_path / "model.safetensors", spatial_dims)
    loaded = load_encoder(tmp_path / "model.safetensors")
    x = torch.rand(2, 1, *(32,) * spatial_dims)
    with torch.no_grad():
        ours, theirs = backbone(x), loaded(x)
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
        assert torch.equal(dense(ours), loaded.features(theirs))
        cells = dense.concatenated(ours)
        torch.testing.assert_close(prototypes(head.eval()(cells)), loaded.prototypes(loaded.head(cells)))
    assert loaded.spacing_range == (0.5, 2.0)


def test_initialise_copies_and_reports(tmp_path: Path) -> None:
    source, *_ = export(tmp_path / "model.safetensors", 2)
    target = Backbone(build_encoder("tiny", 2, in_channels=3))
    report = initialise(target, str(tmp_path / "model.safetensors"))
    count = sum("num_batches" not in key for key in target.state_dict())
    assert f"{count} of {count} tensors matched, 0 missing, 1 reshaped (encoder.stages.0" in report
    assert "0 of another shape" in report
    grey = torch.rand(1, 1, 16, 16)
    same = grey.expand(1, 3, 16, 16)  # equal channels give what one channel gave
    torch.testing.assert_close(target.eval()(same)[0], source.eval()(grey)[0])
    for key, value in source.encoder.stages[3].state_dict().items():
        if "num_batches" not in key:
            assert torch.equal(target.encoder.stages[3].state_dict()[key], value)


def test_initialise_leaves_other_shapes_alone_and_names_them(tmp_path: Path) -> None:
    export(tmp_path / "model.safetensors", 2)
    wider = ResidualEncoder(2, 1, (8, 24, 48, 96), (1, 1, 1, 2))
    target = Backbone(wider)
    kept = {key: value.clone() for key, value in wider.stages[3].state_dict().items()}
    report = initialise(target, str(tmp_path / "model.safetensors"))
    down = "stages.3.0.conv.weight"
    assert f"of another shape (encoder.{down}" in report
    assert "missing (encoder.stages.3.2" in report
    assert torch.equal(wider.state_dict()[down], kept["0.conv.weight"])


def test_initialise_refuses_when_nothing_fits(tmp_path: Path) -> None:
    export(tmp_path / "model.safetensors", 2)
    with pytest.raises(InputError, match=r"--init .* none of its weights fits"):
        initialise(Backbone(build_encoder("genesis", 2)), str(tmp_path / "model.safetensors"))
