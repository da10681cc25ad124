from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from pydantic import ValidationError

from medssl.commands import pretrain
from medssl.config.hssl import HsslConfig
from medssl.config.pretrain import PretrainConfig, SamplingConfig
from medssl.config.sampling import wanted_sampling
from medssl.config.simclr import SimclrConfig
from medssl.config.spark import SparkConfig
from medssl.config.swav import SwavConfig
from medssl.data.cache import Cache
from medssl.data.dataset import CropDataset
from medssl.errors import InputError
from medssl.inference.load import load_encoder
from medssl.io import read_volume, write_volume
from medssl.jobs.progress import drain
from medssl.store.runs import Run
from medssl.training import calibration, generated
from medssl.training.calibration import calibrate_norms
from medssl.training.checkpoint import load_checkpoint
from medssl.volume import Geometry, Volume


@pytest.fixture(autouse=True)
def _short_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "_CALIBRATION_BATCHES", 2)


def tensors(run: Path) -> dict[str, torch.Tensor]:
    values = load_checkpoint(Run(run))
    assert values is not None
    return values["model"]


def assert_same(first: Path, second: Path) -> None:
    ours, theirs = tensors(first), tensors(second)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_run_leaves_weights_that_load_with_head_prototypes_and_projection(
    pretrain_config, spatial_dims: int
) -> None:
    config = pretrain_config(spatial_dims)
    result = drain(pretrain.run(config))
    assert (result.step, result.stopped) == (4, "")
    assert json.loads(json.dumps(result.to_json()))["weights"] == str(result.weights)
    loaded = load_encoder(config.out)
    assert loaded.metadata["method"] == "swav"
    assert loaded.metadata["modalities"] == ["CT", "MR"]
    assert loaded.metadata["preprocessing"] == {"spacing_range": [0.5, 1.25]}
    assert loaded.spatial_dims == spatial_dims
    assert loaded.prototypes is not None
    pyramid = loaded(torch.rand(1, 1, *(32,) * spatial_dims))
    features = loaded.features(pyramid)
    assert features.shape == (1, 64, *(8,) * spatial_dims)
    assert features.isfinite().all()
    assert loaded.prototypes(loaded.head(loaded.features.concatenated(pyramid))).shape[1] == 8
    events = Run(config.out).events()
    assert [event["step"] for event in events] == [1, 2, 3, 4]
    resolved = PretrainConfig.from_yaml(config.out / "config.yaml")
    assert resolved.settings["crops"]["epsilon"] == 0.05  # defaults are written out too


def test_the_split_of_the_prototypes_follows_the_data(pretrain_config, monkeypatch) -> None:
    monkeypatch.setattr(CropDataset, "modality_volumes", lambda self: [400, 100])
    config = pretrain_config(training={"steps": 1, "batch_size": 4})
    settings = {**config.settings, "prototype_split": "sqrt"}
    drain(pretrain.run(config.model_copy(update={"settings": settings})))
    loaded = load_encoder(config.out)
    assert loaded.prototypes is not None
    assert loaded.metadata["prototype_blocks"] == {"CT": [0, 5], "MR": [5, 8]}  # of 8, by 20 to 10


def test_drop_path_is_refused_for_encoders_without_it(pretrain_config) -> None:
    config = pretrain_config().model_copy(update={"drop_path": 0.1})
    with pytest.raises(InputError, match=r"--drop-path.*resnet50.*given --encoder tiny"):
        drain(pretrain.run(config))


def test_stopped_and_resumed_equals_uninterrupted(pretrain_config, tmp_path: Path) -> None:
    drain(pretrain.run(pretrain_config(out=tmp_path / "whole")))
    config = pretrain_config(out=tmp_path / "parts", data=tmp_path / "whole" / "cache")
    steps = pretrain.run(config)
    for progress in steps:
        if progress.phase == "training" and progress.step == 3:
            (config.out / "stop").touch()
    assert Run(config.out).checkpoints()[-1].name == "step-00000004.pt"
    steps = pretrain.run(pretrain_config(out=tmp_path / "again", data=tmp_path / "whole" / "cache"))
    for progress in steps:
        if progress.phase == "training" and progress.step == 2:
            break
    steps.close()
    drain(pretrain.run(pretrain_config(resume=tmp_path / "again", data=tmp_path / "whole" / "cache")))
    assert_same(tmp_path / "whole", tmp_path / "again")


def test_init_copies_what_fits_and_refuses_when_nothing_does(pretrain_config, tmp_path: Path) -> None:
    first = drain(pretrain.run(pretrain_config(out=tmp_path / "first")))
    data = tmp_path / "first" / "cache"
    second = pretrain_config(out=tmp_path / "second", data=data, init=str(tmp_path / "first"))
    messages = [progress.message for progress in pretrain.run(second)]
    count = sum(key.startswith("backbone.") and "num_batches" not in key for key in tensors(first.run))
    assert any(f"{count} of {count} tensors matched" in message for message in messages)
    with pytest.raises(InputError, match="none of its weights fits"):
        drain(
            pretrain.run(pretrain_config(2, out=tmp_path / "third", data=data, init=str(tmp_path / "first")))
        )


def test_what_cannot_be_trained_is_refused_before_scans_are_prepared(
    pretrain_config, tiny_weights: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "_open_data", lambda *given: pytest.fail("scans were read"))
    with pytest.raises(InputError, match="none of its weights fits"):
        drain(pretrain.run(pretrain_config(3, init=str(tiny_weights[2]))))


def test_images_given_for_volumes_are_named_as_the_user_named_them(
    pretrain_config, scans: Path, tmp_path: Path
) -> None:
    scan = read_volume(scans.parent / "0.nii.gz")
    flat = Geometry.from_arrays(scan.geometry.shape[1:], (1.0, 1.0))
    table = tmp_path / "flat.csv"
    write_volume(Volume(scan.array[:, 0], flat, "MR"), tmp_path / "flat.nii.gz")
    table.write_text("image,modality\nflat.nii.gz,MR\n")
    with pytest.raises(InputError, match=rf"^{table}: no 3D image of split"):
        drain(pretrain.run(pretrain_config(3, data=table)))


def test_init_holds_for_a_run_that_was_killed_before_its_first_checkpoint(
    pretrain_config, tmp_path: Path
) -> None:
    drain(pretrain.run(pretrain_config(out=tmp_path / "first")))
    common = {"data": tmp_path / "first" / "cache", "init": str(tmp_path / "first"), "seed": 1}
    drain(pretrain.run(pretrain_config(out=tmp_path / "whole", **common)))
    steps = pretrain.run(pretrain_config(out=tmp_path / "killed", **common))
    while "tensors matched" not in next(steps).message:
        pass
    steps.close()
    drain(pretrain.run(pretrain_config(resume=tmp_path / "killed", **common)))
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_labels_of_the_table_join_the_training(pretrain_config, scans: Path) -> None:
    lines = scans.read_text().splitlines()
    table = [
        f"{lines[0]},class,label",
        f"{lines[1]},a,mask.nii.gz",
        f"{lines[2]},b,",
        f"{lines[3]},,",
        lines[4] + ",,",
    ]
    scan = read_volume(scans.parent / "0.nii.gz")
    mask = (scan.array > 100).astype("int16")
    write_volume(Volume(mask, scan.geometry, ""), scans.parent / "mask.nii.gz")
    scans.write_text("\n".join(table) + "\n")
    config = pretrain_config(hybrid={"class_weight": 1, "dense_weight": 1, "size": 16, "decay": 0.5})
    result = drain(pretrain.run(config))
    assert {"supervised/class_loss", "supervised/dense_loss", "crops/loss"} < set(result.metrics)
    assert [event["metrics"]["balance"] for event in Run(config.out).events()] == [1, 1, 1, 0.5]
    assert load_encoder(config.out).prototypes is not None
    assert any(key.startswith("dense_head") for key in tensors(config.out))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hybrid": {"class_weight": 1.0}}, "knows 0 classes and needs two; fill the column class"),
        ({"hybrid": {"dense_weight": 1.0}}, "no masks of two classes; fill the column label .*--labels"),
        ({"method": "dino"}, "METHOD dino: unknown; choose from .*swav"),
        ({"settings": {"colour": 1}}, "settings of swav: colour"),
        ({"sampling": {"splits": ["val"]}}, "no row has split val"),
        ({"data": Path("absent")}, "absent: no such file"),
        ({"encoder": "huge"}, "--encoder huge"),
        (
            {"method": "simclr", "batch_size": 1, "settings": {}},
            "--batch-size 1: an image is told from the others",
        ),
        (
            {"method": "hssl", "batch_size": 1, "settings": {}},
            "--batch-size 1: an image is told from the others",
        ),
        (
            {"method": "lvm-med", "batch_size": 1, "settings": {}},
            "--batch-size 1: images are matched with each other",
        ),
        ({"method": "mae", "settings": {"mirror_axes": [-3]}, "dims": 2}, "an image in 2D has 2 axes"),
        ({"method": "byol", "batch_size": 1, "settings": {}}, "--batch-size 1: the norms of its heads"),
        (
            {"method": "mae", "settings": {"decoder": "pyramid", "decoder_channels": [4] * 6}},
            "settings of mae: 4 levels decode to as many maps.*given --encoder tiny",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(pretrain_config, changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        drain(pretrain.run(pretrain_config(**changes)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": Path("absent")},
        {"init": "no-such-weights"},
        {"hybrid": {"dense_weight": 1.0}},
        {"sampling": {"splits": ("test",)}},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_refused_command_leaves_the_place_to_the_corrected_one(
    pretrain_config, wrong: dict[str, object]
) -> None:
    config = pretrain_config(**wrong)
    with pytest.raises(InputError):
        drain(pretrain.run(config))
    assert not config.out.exists()
    assert drain(pretrain.run(pretrain_config())).step == 4


def test_a_run_interrupted_while_it_prepares_can_be_resumed(pretrain_config) -> None:
    config = pretrain_config()
    steps = pretrain.run(config)
    while next(steps).phase != "preparing":
        pass
    steps.close()
    assert drain(pretrain.run(config.model_copy(update={"resume": config.out}))).step == 4


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "interrupt"])
def test_a_killed_or_interrupted_run_goes_on_as_if_nothing_had_been(
    pretrain_config, tmp_path: Path, number: signal.Signals
) -> None:
    long = {"steps": 40, "batch_size": 4, "checkpoint_every": 2, "log_every": 1}
    config = pretrain_config(out=tmp_path / "killed", training=long)
    file = tmp_path / "config.yaml"
    config.to_yaml(file)
    command = [sys.executable, "-m", "medssl", "pretrain"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--config", str(file)], env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list((config.out / "checkpoints").glob("*.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"continue with: medssl pretrain --resume {config.out}" in errors.decode()
    done = len(Run(config.out).events())
    assert 2 <= done < 40
    subprocess.run([*command, "--resume", str(config.out)], env=environment, check=True, capture_output=True)
    # in the same environment: another number of threads adds in another order
    pretrain_config(out=tmp_path / "whole", training=long, data=config.out / "cache").to_yaml(file)
    subprocess.run([*command, "--config", str(file)], env=environment, check=True, capture_output=True)
    assert_same(config.out, tmp_path / "whole")
    assert (config.out / "exported" / "model.safetensors").is_file()


@pytest.mark.slow
def test_torchrun_goes_on_from_the_last_checkpoint_when_a_worker_is_killed(
    pretrain_config, tmp_path: Path
) -> None:
    """The second of two processes is killed, the agent starts both anew, and nothing is lost."""
    long = {"steps": 24, "batch_size": 4, "checkpoint_every": 4, "log_every": 1}
    file = tmp_path / "config.yaml"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "LOGLEVEL": "INFO"}
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command = [*agent, "--nproc-per-node", "2", "--max-restarts", "1", "-m", "medssl", "pretrain"]
    config = pretrain_config(out=tmp_path / "killed", training=long)
    config.to_yaml(file)
    process = subprocess.Popen([*command, "--config", str(file)], env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 400
    while not list((config.out / "checkpoints").glob("*.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    psutil.Process(process.pid).children()[1].kill()
    assert len(Run(config.out).events()) < 24, "killed too late to say anything"
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors.decode()[-3000:]
    steps = [event["step"] for event in Run(config.out).events()]
    begins = [i for i in range(1, len(steps)) if steps[i] <= steps[i - 1]]
    assert steps[-1] == 24
    assert len(begins) <= 1
    assert "restart worker group" in errors.decode()
    assert 1 not in steps[1:]  # it did not begin at the beginning
    assert (config.out / "exported" / "model.safetensors").is_file()
    pretrain_config(out=tmp_path / "whole", training=long, data=config.out / "cache").to_yaml(file)
    subprocess.run([*command, "--config", str(file)], env=environment, check=True, capture_output=True)
    assert_same(config.out, tmp_path / "whole")


def by_two_processes(config: PretrainConfig) -> list[dict[str, Any]]:
    """Run under torchrun; what the run said."""
    file = config.out.with_name("config.yaml")
    config.to_yaml(file)
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command = ["--nproc-per-node", "2", "-m", "medssl", "pretrain", "--config", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run([*agent, *command], env=environment, check=True, capture_output=True, timeout=400)
    return list(Run(config.out).events())


@pytest.mark.slow
def test_two_processes_leave_out_levels_that_no_map_of_hssl_is_made_from(pretrain_config) -> None:
    views = {"size": 16, "scale": [0.5, 1.0]}
    config = pretrain_config(method="hssl", settings={"attach": ["enc2"], "dim": 8, "views": views})
    losses = [event["metrics"]["enc2/image"] for event in by_two_processes(config)]
    assert len(losses) == 4
    assert np.isfinite(losses).all()


@pytest.mark.slow
def test_two_processes_take_turns_between_scans_and_generated_volumes(pretrain_config) -> None:
    """Every step leaves out the head of whoever's turn it is not; DDP must not wait for its gradients."""
    small = {"global_size": 16, "cells_per_crop": 16, "hidden": 8, "dim": 8}
    config = pretrain_config(generated=0.5, synthesis=small)
    events = by_two_processes(config)
    assert ["synthesis/loss" in event["metrics"] for event in events] == [False, True, False, True]
    assert load_encoder(config.out).metadata["method"] == "swav"


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("method", ["spark", "mae"])
def test_norms_of_an_encoder_that_saw_masked_images_are_measured_on_whole_images(
    pretrain_config, monkeypatch: pytest.MonkeyPatch, method: str, spatial_dims: int
) -> None:
    measured = []

    def calibrate(module: torch.nn.Module, forward: object, batches: object) -> None:
        measured.append(module)
        calibrate_norms(module, forward, batches)

    monkeypatch.setattr(calibration, "calibrate_norms", calibrate)
    settings = {"size": 32, "width": 64, "ratio": 0.5}
    config = pretrain_config(
        spatial_dims, method=method, settings=settings, training={"steps": 2, "batch_size": 4, "log_every": 1}
    )
    result = drain(pretrain.run(config))
    assert result.step == 2
    assert {"explained", "feature_spread", "reconstruction"} <= set(result.metrics)
    trained, backbone = measured
    assert trained.backbone is backbone
    loaded = load_encoder(config.out)
    assert loaded.metadata["method"] == method
    for name, value in loaded.encoder.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, backbone.encoder.state_dict()[name])


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_crop_that_is_no_multiple_of_the_stride_is_exported(pretrain_config, spatial_dims: int) -> None:
    config = pretrain_config(
        spatial_dims,
        method="models-genesis",
        encoder="genesis",
        settings={"shape": [16] * spatial_dims},
        sampling={"crop": 28},
        training={"steps": 1, "batch_size": 2, "log_every": 1},
    )
    assert drain(pretrain.run(config)).weights == config.out / "exported" / "model.safetensors"


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_synthesis_learns_without_scans(
    spatial_dims: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated, "_SIZES", {2: (3, 48), 3: (3, 48)})
    monkeypatch.setattr(pretrain, "_PROJECTION_EDGE", {2: 48, 3: 48})
    config = PretrainConfig(
        method="synthesis",
        out=tmp_path / "run",
        dims=spatial_dims,
        encoder="tiny",
        settings={"global_size": 32, "cells_per_crop": 32, "hidden": 16, "dim": 8},
        training={"steps": 2, "batch_size": 2, "log_every": 1},
    )
    result = drain(pretrain.run(config))
    assert (result.step, result.stopped) == (2, "")
    loaded = load_encoder(config.out)
    assert loaded.metadata["modalities"] == ["generated"]
    cache = Cache.open(config.out / "cache")
    volumes = [cache.read(row, (0, 0, 0), cache.shape(row)) for row in range(len(cache))]
    assert [volume.shape for volume in volumes] == [(48 if spatial_dims == 3 else 1, 48, 48)] * 3
    assert all(0.02 < volume.std() < 0.5 for volume in volumes)
    assert not np.array_equal(volumes[0], volumes[1])
    with pytest.raises(ValidationError, match="--data: is needed; synthesis alone"):
        PretrainConfig(method="swav", out=tmp_path / "other")


def test_what_a_run_leaves_open_is_what_its_method_needs() -> None:
    """Views are not magnified, and where only images of one task repel each other, there are two of each."""
    left_open = SamplingConfig()
    swav = wanted_sampling(left_open, SwavConfig(global_size=96), 3)
    assert (swav.crop, swav.family, swav.together) == (96, "modality", 1)
    shared = wanted_sampling(left_open, SwavConfig(modality_mode="shared"), 3)
    assert shared.family == "group"
    assert wanted_sampling(left_open, SimclrConfig.model_validate({"views": {"size": 128}}), 3).crop == 128
    assert wanted_sampling(left_open, SparkConfig(), 3).crop == 64
    hssl = wanted_sampling(left_open, HsslConfig(negatives="same_task"), 3)
    assert (hssl.family, hssl.together) == ("task", 2)
    assert wanted_sampling(left_open, HsslConfig(), 3).together == 1
    chosen = SamplingConfig(crop=48, family="group", together=1)
    assert wanted_sampling(chosen, HsslConfig(negatives="same_task"), 3) == chosen
    assert wanted_sampling(left_open, SparkConfig(), 2).crop == 224, "its view is the source crop"
    assert wanted_sampling(chosen, SparkConfig(), 2).crop == 48
