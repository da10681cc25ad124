"""Public checkpoints as weights: imported, shown, embedded with, started from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.commands import weights
from medssl.config.prepare import CacheConfig
from medssl.config.weights import FORMATS, WeightsConfig
from medssl.data.preparation import prepare_cache
from medssl.data.table import read_data
from medssl.errors import InputError
from medssl.inference.embed import embed_volume
from medssl.inference.load import load_encoder
from medssl.io import write_volume
from medssl.jobs.progress import drain
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import restore_encoder
from medssl.nets.segmentation import SegmentationNetwork
from medssl.nets.transfer import load_foreign
from medssl.nets.unet import GenesisDecoder, GenesisEncoder
from medssl.store.sources import SOURCES
from medssl.store.weights import resolve
from medssl.training import adoption
from medssl.training.initialise import initialise
from medssl.training.pretrained_decoder import take_decoder
from medssl.volume import Geometry, Volume

NARROW = {"architecture": "resnet", "spatial_dims": 2, "in_channels": 3, "blocks": [1, 1, 1, 1], "width": 4}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What the SwAV project publishes, of a narrow network."""
    torch.manual_seed(0)
    encoder = restore_encoder(NARROW).train()
    for _ in range(3):
        encoder(torch.rand(4, 3, 64, 64))
    state = {f"module.{key}": value for key, value in encoder.state_dict().items()}
    torch.save({**state, "module.prototypes.weight": torch.rand(5, 8)}, tmp_path / "swav_800ep.pth.tar")
    return tmp_path / "swav_800ep.pth.tar"


def slice_of(array: np.ndarray) -> Volume:
    return Volume(array[None], Geometry.from_arrays(array.shape, (1.0, 1.0)), "MR", "slice")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "scans").mkdir()
    for number in range(2):
        blobs = np.kron(rng.uniform(50, 200, (14, 12)), np.ones((8, 8)))
        array = (blobs + rng.normal(0, 4, blobs.shape)).astype(np.float32)
        write_volume(slice_of(array), tmp_path / "scans" / f"{number}.nii.gz")
    return tmp_path / "scans"


def imported(checkpoint: Path, **options: object) -> weights.WeightsResult:
    config = {"action": "import", "name": str(checkpoint), "format": "swav", "device": "cpu", **options}
    return drain(weights.run(WeightsConfig.model_validate(config)))


def test_imported_weights_have_a_card_with_licence_and_the_features_of_the_source(checkpoint: Path) -> None:
    result = imported(checkpoint)
    folder = checkpoint.with_name("swav_800ep")
    assert "CC BY-NC 4.0" in result.to_text()
    assert json.loads(json.dumps(result.to_json()))["weights"][0]["licence"] == "CC BY-NC 4.0"
    card = (folder / "exported" / "card.md").read_text()
    assert "**CC BY-NC 4.0**" in card
    assert "swav_800ep.pth.tar" in card
    assert "1 not used (module.prototypes.weight)" in card
    shown = drain(weights.run(WeightsConfig(action="show", name=str(folder))))
    assert shown.card == card
    assert resolve(folder).licence == "CC BY-NC 4.0"
    module, _ = load_foreign(checkpoint, "swav")
    loaded = load_encoder(folder)
    for channels in (1, 3):
        x = torch.rand(1, channels, 64, 64)
        with torch.no_grad():
            for ours, theirs in zip(loaded(x), module(x), strict=True):
                torch.testing.assert_close(ours, theirs)


def test_the_decoder_of_models_genesis_is_there_for_segmentation(tmp_path: Path) -> None:
    encoder, decoder = GenesisEncoder(2, 1, 4), GenesisDecoder(2, 4)
    state = {**encoder.state_dict(), **decoder.state_dict()}
    file = tmp_path / "Genesis_Chest_CT.pt"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    imported(file, format="genesis")
    record = resolve(tmp_path / "Genesis_Chest_CT")
    assert record.metadata["decoder"] == {"architecture": "genesis", "width": 4}
    network = SegmentationNetwork(
        restore_encoder(record.metadata["encoder"]), 2, decoder=record.metadata["decoder"]
    )
    assert take_decoder(network.backbone.decoder, str(record.path)) == sum(
        "num_batches" not in key for key in decoder.state_dict()
    )
    for key, value in decoder.state_dict().items():
        if "num_batches" not in key:
            torch.testing.assert_close(network.backbone.decoder.state_dict()[key], value)


def test_without_a_projection_embedding_is_refused_with_a_way_out(checkpoint: Path) -> None:
    messages = [p.message for p in weights.run(_config(checkpoint))]
    assert any("without --data SCANS" in message for message in messages)
    loaded = load_encoder(checkpoint.with_name("swav_800ep"))
    assert not loaded.has_projection
    with pytest.raises(InputError, match=r"no projection of its 240 channels .* --data SCANS"):
        embed_volume(slice_of(np.random.default_rng(0).random((64, 64), np.float32)), loaded)


def _config(checkpoint: Path) -> WeightsConfig:
    return WeightsConfig(action="import", name=str(checkpoint), format="swav", device="cpu")


def test_with_scans_the_projection_is_fitted_and_embedding_works(
    checkpoint: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "_BATCHES", 2)
    result = imported(checkpoint, data=scans, out=tmp_path / "out")
    assert "fitted on scans, without labels" in result.card
    loaded = load_encoder(tmp_path / "out")
    assert loaded.has_projection
    volume = slice_of(np.random.default_rng(1).uniform(0, 200, (110, 118)).astype(np.float32))
    features = embed_volume(volume, loaded).array.astype(np.float32)
    assert features.shape == (64, 28, 30)
    assert np.isfinite(features).all()
    assert np.linalg.matrix_rank(features.reshape(64, -1), tol=1e-3) == 64  # nothing is cut to a few channels
    assert (
        imported(checkpoint, data=scans, out=tmp_path / "again").weights[0]["sha256"]
        == resolve(tmp_path / "out").sha256
    )


def test_a_list_of_caches_is_opened_as_prepared_scans(scans: Path, tmp_path: Path) -> None:
    drain(prepare_cache(read_data(scans), tmp_path / "part", CacheConfig(), workers=1))
    (tmp_path / "all.caches").write_text("part\n")
    cache = drain(weights._open_data(tmp_path / "all.caches", SOURCES["swav"], tmp_path / "scratch"))
    assert len(cache) == len(read_data(scans))
    assert not (tmp_path / "scratch").exists()


def test_pretraining_may_start_from_imported_weights(checkpoint: Path) -> None:
    imported(checkpoint)
    target = Backbone(restore_encoder({**NARROW, "in_channels": 1}))
    report = initialise(target, str(checkpoint.with_name("swav_800ep")))
    count = sum("num_batches" not in key for key in target.state_dict())
    assert f"{count} of {count} tensors matched, 0 missing, 1 reshaped (encoder.conv1.weight)" in report
    with pytest.raises(InputError, match="none of its weights fits"):
        initialise(
            Backbone(restore_encoder({"architecture": "genesis", "spatial_dims": 2, "width": 2})),
            str(checkpoint.with_name("swav_800ep")),
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": None}, "name the checkpoint file"),
        ({"format": None}, "--format: say what the checkpoint is: genesis, swav"),
        ({"format": "dino"}, "--format: dino is unknown"),
        ({"name": "absent.pt"}, "absent.pt: no such file; download it from https"),
    ],
)
def test_bad_requests_are_refused(checkpoint: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        imported(checkpoint, **options)


def test_an_import_does_not_overwrite(checkpoint: Path) -> None:
    imported(checkpoint)
    with pytest.raises(InputError, match="swav_800ep: is there already; choose another --out"):
        imported(checkpoint)


def test_every_format_has_a_source_with_a_licence() -> None:
    assert tuple(SOURCES) == FORMATS
    assert all(source.licence and source.url.startswith("https://") for source in SOURCES.values())
